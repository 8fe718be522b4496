"""The config: one pydantic model a section; its mistakes, defaults, JSON schema and overlays."""
