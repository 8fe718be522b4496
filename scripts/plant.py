"""Generate the planted corpus: documents with known toxic words, in the benchmarks' formats."""

from ifguide.workflow.command_line import argument_parser, run

import argparse
import logging
from collections import defaultdict
from pathlib import Path

from ifguide.data.planted import PlantedSettings, generate
from ifguide.files.artifacts import write_json, write_jsonl, write_text

log = logging.getLogger(__name__)


def bold_object(rows: list[dict]) -> dict[str, dict[str, list[str]]]:
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["group"]][row["entity"]].append(row["prompt"])
    return groups


def tab_separated(rows: list[dict]) -> str:
    lines = ["\t".join(rows[0])] + ["\t".join(row.values()) for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: argparse.Namespace) -> None:
    settings = PlantedSettings.from_config(arguments.settings.get("planted", {}))
    records = generate(settings, arguments.settings["seed"])
    directory = Path(arguments.output_dir)
    write_text(directory / "pairs.tsv", tab_separated(records.pop("pairs")))
    write_text(directory / "words.txt", "".join(row["word"] + "\n" for row in records.pop("words")))
    write_json(directory / "toxigen.json", records.pop("toxigen"))
    write_json(directory / "bold.json", bold_object(records.pop("bold")))
    documents = records["documents"]
    for stem, rows in records.items():
        write_jsonl(directory / f"{stem}.jsonl", rows)
    characters = sum(len(document["text"]) for document in documents)
    toxic = sum(end - start for document in documents for start, end in document["spans"])
    log.info(
        "planted %d documents, %d characters, %.2f %% of them toxic",
        len(documents), characters, 100 * toxic / characters,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--output-dir", required=True, help="directory to write the files into")
    run(main, parser)
