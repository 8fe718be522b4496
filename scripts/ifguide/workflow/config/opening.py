"""The config of a run: what was given, over what it extends, checked and with every default."""

from pathlib import Path
from typing import TYPE_CHECKING

from ifguide.errors import InputError
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.overlays import resolve

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

# What a report tells of the run beside its config, which comes with that and are no keys of it.
TOLD_BESIDE = ("made_by_other_code", "result_sentence")


def open_config(workflow: "Workflow", config: dict, default: Path) -> None:
    """Replace the content of `config`, Snakemake's own, by the checked one.

    default: the config that is changed where none that is given stands alone. Stops with one line
    where the config is mistaken.
    """
    given = config
    try:
        # Here, because the steps of methods that are installed may not fit together.
        from ifguide.workflow.config.experiment import Config

        # What another workflow gives this one, as its module, is whole.
        if not workflow.modifier.skip_configfile:
            settings = workflow.config_settings
            found = resolve(
                settings.overwrite_config, settings.configfiles, settings.config, default
            )
            given = found.config
            workflow.configfiles += found.beneath
        if "extends" in given:
            raise InputError("extends: is followed in files that --configfile names; merge the two")
        told = {name: given.pop(name) for name in TOLD_BESIDE if name in given}
        filled = with_defaults(Config, given)
    except InputError as error:
        raise SystemExit(f"error: config: {error}") from None
    config.clear()
    config.update(filled)
    config.update(told)
