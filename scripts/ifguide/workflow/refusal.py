"""How the workflow refuses what it was given: one line, which a traceback would only bury."""

from typing import NoReturn


def refuse_config(key: str, problem: object) -> NoReturn:
    said = str(problem).replace("\n", " ")
    raise SystemExit(f"error: config: {key}: {said}")
