"""Measure how much of the test prompts stands in what models, judges or methods learn from.

settings: {"ngram", "share", "cosine": from where a prompt overlaps, "pairs": of how many of the
worst prompts the text is kept}. With --documents, of each source of the corpus, which is streamed;
else of the sets of the other options, each file named for what learns from it.
"""

from ifguide.workflow.command_line import argument_parser, run

import itertools
import logging
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from ifguide.data.contamination import Overlap, PromptLookup, Thresholds, in_batches
from ifguide.data.learned_files import KINDS, read_learned, read_prompt_file
from ifguide.files.artifacts import stream_jsonl, write_json

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    thresholds = Thresholds(settings["ngram"], settings["share"], settings["cosine"])
    lookups = {
        path.stem: PromptLookup([one.prompt for one in read_prompt_file(path)], thresholds)
        for path in arguments.prompts
    }
    found: dict[tuple[str, str], Overlap] = {}
    for source, texts in sources(arguments):
        for batch, words in in_batches(texts):
            for benchmark, lookup in lookups.items():
                overlap = found.setdefault((source, benchmark), Overlap(lookup))
                overlap.add(batch, words)
    counts = [
        {"source": source, "benchmark": benchmark, **overlap.counts()}
        for (source, benchmark), overlap in found.items()
    ]
    for row in counts:
        log.info("%s", row)
    worst = [
        {"source": source, "benchmark": benchmark, **pair}
        for (source, benchmark), overlap in found.items()
        for pair in overlap.worst(settings["pairs"])
    ]
    write_json(arguments.output, {**asdict(thresholds), "counts": counts, "worst": worst})


def sources(arguments: Namespace) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the texts of each source; the documents of one stand together."""
    if arguments.documents:
        documents = stream_jsonl(arguments.documents)
        for source, own in itertools.groupby(documents, key=lambda document: document["source"]):
            yield f"corpus.sources.{source}", (document["text"] for document in own)
        return
    yield from read_learned(vars(arguments)).texts()


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", type=Path, help="documents of the corpus, JSON lines")
    for kind in KINDS:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=Path, nargs="*", default=[])
    parser.add_argument("--prompts", type=Path, nargs="+", required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
