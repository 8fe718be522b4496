"""Score continuations by every judge.

settings: {"judges": {name: what opens it, as of `evaluation.judge_forms.open_judge`}}.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.evaluation.judge import TOXICITY
from ifguide.evaluation.judge_forms import open_judge
from ifguide.files.artifacts import read_jsonl, write_jsonl

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    records = [record for path in arguments.continuations for record in read_jsonl(path)]
    records.sort(key=lambda record: (record["prompt_index"], record["sample"]))
    prompts = [record["prompt"] for record in records]
    texts = [record["continuation"] for record in records]
    for name, given in arguments.settings["judges"].items():
        fields = open_judge(name, given).scores(prompts, texts)
        for row, record in enumerate(records):
            record[name] = fields[TOXICITY][row]
            if len(fields) > 1:
                record[f"{name}_fields"] = {field: fields[field][row] for field in fields}
        log.info("%d continuations scored by %s", len(records), name)
    write_jsonl(arguments.output, records)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--continuations", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
