"""The base of every section of the config: unknown keys are refused, values keep their type."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """One section. Numbers are not read from text, and no key is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
