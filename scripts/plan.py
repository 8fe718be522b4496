"""Plan an experiment: what every stage of it costs, before and after it has run.

settings: the whole config. facts: where the files of the experiment lie, and the settings that
rules resolve. The jobs are those of a dry run of the whole workflow with this config; a job whose
file of measured time exists is compared with the estimate on the first device.

Written to the output folder: plan.csv (a row for each stage, rule and subject) and plan.md; the
table of stages also goes to stdout.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
from argparse import Namespace
from pathlib import Path

from ifguide.files.artifacts import write_text
from ifguide.files.tables import write_table
from ifguide.planning.devices import planned_devices
from ifguide.planning.experiment import Experiment
from ifguide.planning.jobs import planned_jobs
from ifguide.planning.tables import markdown, memory_notes, plain, plan_table, shown, stage_table

LIST_JOBS = Path(__file__).with_name("list_jobs.py")
MEANING = (
    "hours are those of one device, all jobs one after another; memory is that of the largest job; "
    "network and report are not reckoned"
)


def main(arguments: Namespace) -> None:
    config = arguments.settings
    devices, start_seconds, assumptions = planned_devices(config["plan"])
    experiment = Experiment(config, arguments.facts)
    jobs = planned_jobs(experiment, LIST_JOBS, arguments.snakefile)
    table = plan_table(jobs, devices, start_seconds)
    stages = stage_table(table)
    notes = [MEANING, *assumptions, *experiment.counts.notes()]
    notes += [note for device in devices for note in memory_notes(stages, device)]
    bullets = "".join(f"- {note}\n" for note in notes)
    heading, lines = shown(stages, devices)
    name = config["experiment"]
    write_table(arguments.output / "plan.csv", table, float_format="%.6g")
    write_text(
        arguments.output / "plan.md",
        f"# Plan of {name}\n\n{markdown(heading, lines)}\n## Where the numbers come from\n\n"
        f"{bullets}",
    )
    print(f"plan of {name}\n\n{plain(heading, lines)}\nwhere the numbers come from\n{bullets}")
    print(f"every rule   {arguments.output}/plan.csv\nthis table   {arguments.output}/plan.md")


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--facts", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--snakefile", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    run(main, parser)
