"""Score continuations with the explicit and the implicit classifier.

settings: {"explicit": {...}, "implicit": {...}}: where each classifier comes from.
"""

import logging
from argparse import Namespace
from pathlib import Path

from command_line import argument_parser, run
from ifguide.artifacts import read_jsonl, write_jsonl
from ifguide.toxicity import ImplicitClassifier, explicit_scores, implicit_scores, load_explicit

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    records = read_jsonl(arguments.continuations)
    texts = [record["continuation"] for record in records]
    if arguments.explicit_checkpoint:
        explicit = load_explicit(checkpoint=arguments.explicit_checkpoint)
    else:
        explicit = load_explicit(name=settings["explicit"]["hub"])
    fields = explicit_scores(explicit, texts)
    implicit = implicit_scores(
        ImplicitClassifier(arguments.implicit, settings["implicit"].get("toxic_label", 1)), texts
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
    parser.add_argument("--continuations", type=Path, required=True)
    parser.add_argument("--explicit-checkpoint", type=Path)
    parser.add_argument("--implicit", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
