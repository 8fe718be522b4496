"""Refuse what methods, judges and reward models learn from where it is also a test prompt.

A file of pairs is named for the method, or the rival of influence, that is trained on them; one of
labelled texts for the entry of `texts`, the judge or the reward model. Records that a judge has in
common with what methods learn from, or with another judge, are counted.
"""

from ifguide.workflow.command_line import argument_parser, run

import itertools
from argparse import Namespace
from pathlib import Path

from ifguide.data.labelled_texts import require_texts_disjoint
from ifguide.data.learned_files import KINDS, read_learned, read_prompt_file
from ifguide.data.preferences import require_pairs_disjoint
from ifguide.data.prompts import require_disjoint
from ifguide.files.artifacts import write_json


def main(arguments: Namespace) -> None:
    learned = read_learned(vars(arguments))
    benchmarks = {path.stem: read_prompt_file(path) for path in arguments.prompts}
    for require, sets in (
        (require_disjoint, learned.queries),
        (require_pairs_disjoint, learned.pairs),
        (require_texts_disjoint, learned.labelled),
    ):
        for (key, found), (name, prompts) in itertools.product(sets.items(), benchmarks.items()):
            require(found, prompts, key, name)
    records = learned.records()
    record = {
        "records": {key: len(found) for key, found in records.items()},
        "benchmarks": {name: len(prompts) for name, prompts in benchmarks.items()},
        "shared_prompts": 0,
        "shared_by_judges": shared_by_judges(records),
    }
    write_json(arguments.output, record)


def shared_by_judges(records: dict[str, set[str]]) -> list[dict]:
    """Return of each judge how many of its records other sets have, where any has one."""
    judges = [key for key in records if key.startswith(f"{KINDS['judges']}.")]
    pairs = [
        (judge, other)
        for judge, other in itertools.product(judges, records)
        if other not in judges or judge < other
    ]
    return [
        {"judge": judge, "records": len(records[judge]), "with": other, "shared": shared}
        for judge, other in pairs
        if (shared := len(records[judge] & records[other]))
    ]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=Path, nargs="*", default=[])
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
