"""Score the continuations of every benchmark by every judge.

settings: {"judges": {name: what opens it, as of `evaluation.judge_forms.open_judge`}}. --output: a
file for each of --benchmarks; --continuations: as many files for each of them, in their order.

A benchmark's texts are judged in batches of their own, so that no bit of a score depends on what
else is measured. An output that was made from the same before is kept.
"""

from ifguide.workflow.command_line import add_kept_arguments, argument_parser, divided, run

import functools
import logging
from argparse import Namespace
from pathlib import Path

from ifguide.evaluation.judge import TOXICITY
from ifguide.evaluation.judge_forms import judge_identity, open_judge
from ifguide.files.artifacts import read_jsonl, write_jsonl
from ifguide.files.checksums import file_sha256
from ifguide.files.kept import KeptOutputs

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    judges = arguments.settings["judges"]
    common = {
        "judges": {name: judge_identity(given) for name, given in judges.items()},
        "code": arguments.code,
    }
    continuations = dict(
        zip(arguments.output, divided(arguments.continuations, len(arguments.output)), strict=True)
    )
    outputs = KeptOutputs(
        {
            output: common | {"continuations": [file_sha256(path) for path in paths]}
            for output, paths in continuations.items()
        }
    )
    opened = functools.cache(lambda name: open_judge(name, judges[name]))
    for output in outputs.unfinished:
        records = read_records(continuations[output])
        prompts = [record["prompt"] for record in records]
        texts = [record["continuation"] for record in records]
        for name in judges:
            fields = opened(name).scores(prompts, texts)
            for row, record in enumerate(records):
                record[name] = fields[TOXICITY][row]
                if len(fields) > 1:
                    record[f"{name}_fields"] = {field: fields[field][row] for field in fields}
            log.info("%s: %d continuations scored by %s", output, len(records), name)
        write_jsonl(outputs.place(output), records)
    outputs.publish()


def read_records(paths: list[Path]) -> list[dict]:
    """Return the continuations of a benchmark by prompt and sample."""
    records = [record for path in paths for record in read_jsonl(path)]
    return sorted(records, key=lambda record: (record["prompt_index"], record["sample"]))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    add_kept_arguments(parser)
    parser.add_argument("--continuations", type=Path, nargs="+", required=True)
    run(main, parser, resumes=True)
