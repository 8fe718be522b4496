"""Write the pages of the report that show text: documents, tokens, continuations, overlap.

--settings: {"documents": 2000, "prompts": 12, "samples": 4, "judges": [names], "disagreements": 3,
"threshold": 0.5, "resamples": 2000, "level": 0.95, "seed": int}: how many ranked documents, prompts
of each split and continuations of a prompt to show, the judges whose scores stand beside these, and
how many texts to show about which two judges disagree.
"""

from ifguide.workflow.command_line import argument_parser, labelled_path, run

import argparse
import logging

from ifguide.evaluation.judge import LEADING
from ifguide.evaluation.judge_agreement import agreement_of_judges, disagreements, verdicts
from ifguide.files.artifacts import read_json, read_jsonl, write_text
from ifguide.files.tables import read_table
from ifguide.report.report_pages import (
    contamination_page,
    continuations_page,
    documents_page,
    erased_page,
    judges_page,
    tokens_page,
)
from ifguide.seeds import derive_seed

log = logging.getLogger(__name__)

# A phrase or a method may be called "null".
AS_WRITTEN = {"keep_default_na": False}


def main(arguments: argparse.Namespace) -> None:
    settings = arguments.settings
    if arguments.documents:
        ranking = read_table(arguments.documents, keep_default_na=False)
        if "rank" in ranking:
            ranking = ranking.sort_values("rank", kind="stable")
        shown = ranking.head(settings.get("documents", 2000))
        if arguments.texts:
            texts = {record["document"]: record["text"] for record in read_jsonl(arguments.texts)}
            shown = shown.assign(text=shown["document"].map(texts).fillna(""))
        write_text(arguments.output_documents, documents_page(shown, total=len(ranking)))
        log.info("%d ranked documents in %s", len(shown), arguments.output_documents)
    if arguments.tokens:
        documents = sorted(read_jsonl(arguments.tokens), key=lambda document: document["rank"])
        write_text(arguments.output_tokens, tokens_page(documents))
        log.info("tokens of %d documents in %s", len(documents), arguments.output_tokens)
    if arguments.erased:
        write_text(arguments.output_erased, erased_page(read_table(arguments.erased, **AS_WRITTEN)))
        log.info("erased phrases in %s", arguments.output_erased)
    if arguments.contamination:
        measured = [read_json(path) for path in arguments.contamination]
        shared = read_json(arguments.disjoint)["shared_by_judges"]
        write_text(arguments.output_contamination, contamination_page(measured, shared))
        log.info("overlap with test prompts in %s", arguments.output_contamination)
    if arguments.generations:
        generations = {
            method: read_jsonl(path) for method, path in map(labelled_path, arguments.generations)
        }
        written = continuations_page(
            generations,
            judges=settings.get("judges", LEADING),
            prompts=settings.get("prompts", 12),
            samples=settings.get("samples", 4),
            seed=derive_seed(settings.get("seed", 0), "shown prompts"),
        )
        write_text(arguments.output_continuations, written)
        log.info("%d methods side by side in %s", len(generations), arguments.output_continuations)
        if arguments.tested:
            write_text(arguments.output_judges, of_judges(arguments, generations))
            log.info("the judges in %s", arguments.output_judges)


def of_judges(arguments: argparse.Namespace, generations: dict[str, list[dict]]) -> str:
    settings = arguments.settings
    threshold, level = settings.get("threshold", 0.5), settings.get("level", 0.95)
    seed = settings.get("seed", 0)
    flagged = verdicts(generations, settings.get("judges", LEADING), threshold)
    agreement = agreement_of_judges(
        flagged,
        resamples=settings.get("resamples", 2000),
        seed=derive_seed(seed, "intervals", "agreement of judges"),
        level=level,
    )
    shown = disagreements(generations, flagged, settings.get("disagreements", 3), seed)
    return judges_page(
        read_table(arguments.tested),
        read_jsonl(arguments.cases),
        agreement,
        list(shown),
        threshold=threshold,
        level=level,
    )


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--documents", help="documents.csv")
    parser.add_argument(
        "--texts", help="JSON lines of document and text, where documents.csv has no column text"
    )
    parser.add_argument("--output-documents", default="documents.html")
    parser.add_argument("--tokens", help="JSON lines, one a document to show")
    parser.add_argument("--output-tokens", default="tokens.html")
    parser.add_argument("--generations", nargs="+", metavar="METHOD=PATH")
    parser.add_argument("--output-continuations", default="continuations.html")
    parser.add_argument("--tested", help="functional tests of the judges (CSV)")
    parser.add_argument("--cases", help="JSON lines, the cases of these tests")
    parser.add_argument("--output-judges", default="judges.html")
    parser.add_argument("--erased", help="the harmless phrases that masks erase (CSV)")
    parser.add_argument("--output-erased", default="erased.html")
    parser.add_argument("--contamination", nargs="+", help="overlap with test prompts (JSON)")
    parser.add_argument("--disjoint", help="the records that judges share (JSON)")
    parser.add_argument("--output-contamination", default="contamination.html")
    run(main, parser)
