"""Refuse query records, preference pairs and labelled texts that are also test prompts.

A file of pairs is named for the method, or the rival of influence, that is trained on them.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.labelled_texts import require_texts_disjoint
from ifguide.data.preferences import PreferencePair, require_pairs_disjoint
from ifguide.data.prompts import require_disjoint
from ifguide.files.artifacts import read_jsonl, write_json


def main(arguments: Namespace) -> None:
    queries = {path.stem: read_records(path) for path in arguments.queries}
    benchmarks = {path.stem: read_records(path) for path in arguments.prompts}
    for query_name, records in queries.items():
        for benchmark_name, prompts in benchmarks.items():
            require_disjoint(records, prompts, query_name, benchmark_name)
    learners = {f"methods.{path.stem}": path for path in arguments.pairs}
    learners |= {f"influence.rivals.{path.stem}": path for path in arguments.rival_pairs}
    pairs = {
        key: [PreferencePair(**record) for record in read_jsonl(path)]
        for key, path in learners.items()
    }
    for key, compared in pairs.items():
        for benchmark_name, prompts in benchmarks.items():
            require_pairs_disjoint(compared, prompts, key, benchmark_name)
    texts = {path.stem: [record["text"] for record in read_jsonl(path)] for path in arguments.texts}
    for texts_name, learned in texts.items():
        for benchmark_name, prompts in benchmarks.items():
            require_texts_disjoint(learned, prompts, texts_name, benchmark_name)
    counts = {
        "queries": {name: len(records) for name, records in queries.items()},
        "benchmarks": {name: len(records) for name, records in benchmarks.items()},
        "pairs": {key: len(compared) for key, compared in pairs.items()},
        "texts": {name: len(learned) for name, learned in texts.items()},
        "shared_prompts": 0,
    }
    write_json(arguments.output, counts)


def read_records(path: Path) -> list[PromptRecord]:
    return [PromptRecord(**record) for record in read_jsonl(path)]


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--queries", type=Path, nargs="+", required=True)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--pairs", type=Path, nargs="*", default=[])
    parser.add_argument("--rival-pairs", type=Path, nargs="*", default=[])
    parser.add_argument("--texts", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
