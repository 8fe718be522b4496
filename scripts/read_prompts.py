"""Read one set of prompts, of a benchmark or of queries, into one format.

settings: {"prompts": {...}, "needs_continuation": bool, "seed": int}; of passages {"prompts",
"block_size": tokens of the shortest context, "seed"}. With --match, the records of another query
set, the nearest record of this one is taken for each of those.
"""

from ifguide.workflow.command_line import argument_parser, run

import logging
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from ifguide.data.benchmark_formats import PromptRecord
from ifguide.data.file_lists import from_arguments
from ifguide.data.matching import matched
from ifguide.data.prompts import read_lambada, read_prompts
from ifguide.errors import InputError
from ifguide.files.artifacts import read_jsonl, write_json, write_jsonl

log = logging.getLogger(__name__)


def main(arguments: Namespace) -> None:
    settings, seed = arguments.settings["prompts"], arguments.settings["seed"]
    files = from_arguments(arguments.files)
    if settings.get("kind") == "lambada":
        block_size = arguments.settings["block_size"]
        passages, report = read_lambada(files, settings.get("limit"), seed, block_size)
        log.info("%s", report)
        write_json(arguments.report, report)
        write_jsonl(arguments.output, ({"text": passage} for passage in passages))
        return
    records, report = read_prompts(settings, files, seed)
    if arguments.settings["needs_continuation"] and any(r.continuation is None for r in records):
        raise InputError(
            f"config key queries: records of format {settings['format']} without a continuation, "
            "and the query direction is their gradient; give such as have one"
        )
    if arguments.match:
        others = [PromptRecord(**record) for record in read_jsonl(arguments.match)]
        found = matched(others, records, settings["match"]["by"])
        report["matched"] = {"records": len(found), "distinct": len({id(r) for r in found})}
        records = found
    log.info("%s", report)
    write_json(arguments.report, report)
    write_jsonl(arguments.output, (asdict(record) for record in records))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--files", nargs="+", required=True)
    parser.add_argument("--match", type=Path, help="query records to match")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
