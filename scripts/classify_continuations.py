"""Score continuations with the explicit and the implicit classifier.

settings: {"toxic_label": int}: the index of the implicit classifier's toxic class.
"""

import logging
from argparse import Namespace
from pathlib import Path

from ifguide.evaluation.toxicity import (
    ImplicitClassifier,
    explicit_scores,
    implicit_scores,
    load_explicit,
)
from ifguide.files.artifacts import read_jsonl, write_jsonl
from ifguide.workflow.command_line import argument_parser, run

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    records = [record for path in arguments.continuations for record in read_jsonl(path)]
    records.sort(key=lambda record: (record["prompt_index"], record["sample"]))
    texts = [record["continuation"] for record in records]
    fields = explicit_scores(load_explicit(arguments.explicit), texts)
    implicit = implicit_scores(
        ImplicitClassifier(arguments.implicit, arguments.settings["toxic_label"]), texts
    )
    log.info("%d continuations scored", len(records))
    write_jsonl(
        arguments.output,
        (
            {
                **record,
                "explicit": fields["toxicity"][row],
                "implicit": implicit[row],
                "explicit_fields": {field: values[row] for field, values in fields.items()},
            }
            for row, record in enumerate(records)
        ),
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--continuations", type=Path, nargs="+", required=True)
    parser.add_argument("--explicit", type=Path, required=True, help="Detoxify checkpoint")
    parser.add_argument("--implicit", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
