"""Grids of strengths: a method that names several stands for one method of each."""

from ifguide.methods.step import STRENGTHS, graded_step, registered_steps
from ifguide.workflow.refusal import refuse_config


def variant_name(method: str, strength: float) -> str:
    """Return the name of a method at one strength: a name holds no point and no plus."""
    return f"{method}-{strength:g}".replace(".", "_").replace("+", "")


def curves_of(config: dict) -> dict[str, dict[str, float]]:
    """Return the strength of each variant, by method and the variant's name, as they are given."""
    curves = {}
    for method, entry in config["methods"].items():
        if key := graded_step(entry):
            strengths = entry[key][STRENGTHS]
            curves[method] = {variant_name(method, value): value for value in strengths}
    return curves


def spread_out(config: dict) -> None:
    """Give every strength a method of its own, and compare these in place of the method itself.

    What is spread out already stays: the record of a run repeats it. Stops with one line where a
    variant has the name of another method.
    """
    methods, evaluation = config["methods"], config["evaluation"]
    curves = curves_of(config)
    for method, variants in curves.items():
        entry, key = methods[method], graded_step(methods[method])
        for name, value in variants.items():
            options = {k: v for k, v in entry[key].items() if k != STRENGTHS}
            variant = {**entry, key: {**options, registered_steps()[key].strength: value}}
            if methods.setdefault(name, variant) != variant:
                refuse_config(
                    f"methods.{method}.{key}.{STRENGTHS}",
                    f"{value:g} would be the method {name!r}, which is another one; rename that",
                )
    evaluation["methods"] = list(
        dict.fromkeys(
            name for method in evaluation["methods"] for name in curves.get(method, [method])
        )
    )
