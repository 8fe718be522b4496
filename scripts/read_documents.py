"""Read the corpus sources into numbered documents, and hold some out.

settings: {"sources": [...], "overlap": {"ngram", "share"} or null, "seed": int}; --files gives one
JSON list of paths a source. With an overlap, a document that has that share of the n-grams of one
of the --prompts is left out.
"""

from ifguide.workflow.command_line import argument_parser, run

import json
import logging
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

from ifguide.data.documents import Document, ReadReport, is_held_out, read_documents
from ifguide.data.file_lists import from_arguments
from ifguide.data.matching import words_of
from ifguide.data.shared_ngrams import SharedNgrams
from ifguide.errors import InputError
from ifguide.files.artifacts import atomic_path, stream_jsonl, write_json

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    test_prompts = None
    if settings.get("overlap"):
        prompts = [words_of(one["prompt"]) for p in arguments.prompts for one in stream_jsonl(p)]
        test_prompts = SharedNgrams(prompts, settings["overlap"]["ngram"])
    counts = {"training": 0, "held_out": 0}
    reports = {}
    with (
        atomic_path(arguments.training) as training_path,
        atomic_path(arguments.held_out) as held_out_path,
        open(training_path, "w", encoding="utf-8") as training,
        open(held_out_path, "w", encoding="utf-8") as held_out,
    ):
        for source, given in zip(settings["sources"], arguments.files, strict=True):
            report, overlapping = ReadReport(), 0
            for document in read_documents(source, from_arguments(given), report):
                if source.get("harmless") and document.spans is None:
                    document = replace(document, spans=())
                if test_prompts and test_prompts.holds_a_prompt(
                    words_of(document.text), settings["overlap"]["share"]
                ):
                    overlapping += 1
                    continue
                name, lines = "training", training
                if is_held_out(document.text, source["held_out"], settings["seed"]):
                    name, lines = "held_out", held_out
                lines.write(json_line(counts[name], document))
                counts[name] += 1
            reports[source["name"]] = asdict(report)
            if test_prompts:
                reports[source["name"]]["dropped_overlap"] = overlapping
                log.info("%s: %d documents hold a test prompt", source["name"], overlapping)
            log.info("%s: %d documents", source["name"], report.documents)
        together = counts["training"] + counts["held_out"]
        shares = [source["held_out"] for source in settings["sources"]]
        for name, cure in (("training", "below 1"), ("held_out", "above 0")):
            if counts[name] == 0:
                if 0 < max(shares) < 1:
                    cure = f"to more than {max(shares):g}" if name == "held_out" else "lower"
                raise InputError(
                    f"config key corpus.sources: none of {together} documents is a "
                    f"{name.replace('_', '-')} one; set the `held_out` share of at least one "
                    f"source {cure}, or give more documents"
                )
    write_json(arguments.report, {"documents": counts, "sources": reports})


def json_line(index: int, document: Document) -> str:
    record = {"document": index, **asdict(document)}
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--files", type=json.loads, required=True, metavar="JSON")
    parser.add_argument("--prompts", type=Path, nargs="*", default=[], help="of tests")
    parser.add_argument("--training", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    run(main, parser)
