"""What a plan reckons with."""

from typing import Annotated

from pydantic import Field

from ifguide.settings import OrAbsent, Settings, section
from ifguide.workflow.config.values import Distinct, Name, matching

RecordsKey = Annotated[
    str,
    matching(
        r"^(queries|benchmarks|methods|classifiers|rewards|texts|influence\.rivals)"
        r"\.[A-Za-z0-9][A-Za-z0-9_-]*$",
        "is not the key of records, such as queries.NAME",
    ),
]


class Utilisation(Settings):
    """Shares of the peak that are reached, by kind of work, where they differ."""

    training: OrAbsent[float] = Field(None, gt=0, le=1, description="Training.")
    gradients: OrAbsent[float] = Field(None, gt=0, le=1, description="Factors and query gradients.")
    scores: OrAbsent[float] = Field(None, gt=0, le=1, description="Scores and perplexity.")
    generation: OrAbsent[float] = Field(None, gt=0, le=1, description="Continuations.")
    classification: OrAbsent[float] = Field(None, gt=0, le=1, description="Classifiers.")


class OwnDevice(Settings):
    """A device that is not in the table of devices."""

    bfloat16: float = Field(gt=0, description="Dense peak of bfloat16 products in FLOP/s.")
    float32: float = Field(gt=0, description="Dense peak of float32 products in FLOP/s.")
    tf32: float | None = Field(
        None,
        gt=0,
        description="Dense peak of TF32 products in FLOP/s; null where the device has none.",
    )
    memory_gib: float | None = Field(None, gt=0, description="Memory of the device in GiB.")
    utilisation: Utilisation = section()


class Plan(Settings):
    """What `snakemake plan` reckons with where nothing has been measured; no result depends on
    it."""

    devices: Distinct[str] = Field(
        ["cpu-core", "a100", "h100"],
        min_length=1,
        description="Names of the devices whose hours are estimated, the first of them to be "
        "compared with measured ones: `cpu-core`, `a100`, `h100`, `h100-pcie`, "
        "`h200`, `b200`, `l40s`, `a10g`, `l4`, those of `own_devices`, and "
        "`calibrated`.",
    )
    own_devices: dict[Name, OwnDevice] = section("Further devices by name.")
    calibration: str | None = Field(
        None,
        description="File that `scripts/measure_device.py` wrote on the machine that will run: "
        "the device `calibrated`.",
    )
    utilisation: Utilisation = section()
    start_seconds: float = Field(5, ge=0, description="Seconds in which a job loads its libraries.")
    tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens of the training corpus, until it is tokenized; null reckons them from "
        "local files.",
    )
    characters_per_token: float = Field(
        4.0, gt=0, description="Characters of a token, until the corpus is tokenized."
    )
    records: dict[RecordsKey, Annotated[int, Field(ge=0)]] = section(
        "Numbers of records, until they are read, by the key that they stand at: "
        "`queries.NAME`, `benchmarks.NAME`, `methods.NAME` (pairs), "
        "`classifiers.NAME`, `rewards.NAME`, `texts.NAME`, `influence.rivals.NAME` (pairs)."
    )
