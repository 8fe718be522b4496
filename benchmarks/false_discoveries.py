"""The decoy estimate of false discoveries against the truth, on planted corpora.

    python benchmarks/false_discoveries.py --output results/false_discoveries

The default experiment is run up to its selections with several seeds of everything (corpus,
queries, proxy) and several shares of toxic documents, on one core each. Of every mask: the share of
the tokens that it takes, the false discovery rate that was estimated, the share that is not toxic,
the share of the toxic spans that it touches, and how many scores of ordinary size are negative for
each positive one, by which the estimate can be trusted or not. Written: false_discoveries.csv, and
.md with the means and the worst over the seeds. Finished runs are kept in --work, so that it can be
continued.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from ifguide.data.corpus import open_corpus
from ifguide.data.removal import removal_quality
from ifguide.influence.selection_files import open_mask

REPOSITORY = Path(__file__).resolve().parent.parent
SELECTIONS = {
    "3 % of the tokens, as scored": {"quantile": 0.97, "limit": 0.03},
    "rate 0.1, as scored": {"limit": {"false_discovery_rate": 0.1}},
    "rate 0.1, pooled over tokens": {"pooling": 0.9, "limit": {"false_discovery_rate": 0.1}},
    **{
        f"rate {rate}, pooled over contexts": {
            "pooling": 0.9,
            "pool_over": "context",
            "limit": {"false_discovery_rate": rate},
        }
        for rate in (0.05, 0.1, 0.2)
    },
}


def run(folder: Path, seed: int, toxic_share: float, cores: int) -> Path:
    """Run the default experiment up to its selections; return its results folder."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = {
        "experiment": "planted",
        "seed": seed,
        "planted": {"toxic_share": toxic_share},
        "influence": {
            "selections": {
                f"mask-{number}": {"direction": "differential", "window": 0, **settings}
                for number, settings in enumerate(SELECTIONS.values())
            },
        },
    }
    (folder / "changes.yaml").write_text(yaml.safe_dump(changes), encoding="utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "select", "--quiet", "all"),
            *("--snakefile", REPOSITORY / "workflow/Snakefile", "--directory", folder),
            *("--cores", str(cores), "--configfile", REPOSITORY / "config/config.yaml"),
            folder / "changes.yaml",
        ],
        check=True,
    )
    return folder / "results/planted"


def measured(results: Path, seed: int, toxic_share: float) -> list[dict]:
    """Return what each mask of a run is worth."""
    corpus = open_corpus(results / "corpus/bpe")
    rows = []
    for number, name in enumerate(SELECTIONS):
        folder = results / f"influence/proxy/differential/mask-{number}"
        mask, record = open_mask(folder, corpus)
        quality = removal_quality(corpus, mask.shards)
        rows.append(
            {
                "toxic_documents": toxic_share,
                "seed": seed,
                "mask": name,
                "share": record["selected_share"],
                "estimated_false": record["false_discovery_rate"],
                "false": 1 - quality["precision"],
                "spans_touched": quality["spans_touched"],
                "negative_over_positive": record["negative_over_positive"],
            }
        )
    return rows


def summarised(table: pd.DataFrame) -> str:
    """Return the means over seeds in Markdown, with the worst seed of what a mask is judged by."""
    lines = [
        "| toxic documents | mask | of the tokens | estimated false | false (worst seed) "
        "| spans touched (worst seed) | negative over positive |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (share, mask), rows in table.groupby(["toxic_documents", "mask"], sort=False):
        mean = rows.mean(numeric_only=True)
        lines.append(
            f"| {100 * share:g} % | {mask} | {100 * mean['share']:.2f} % "
            f"| {mean['estimated_false']:.2f} | {mean['false']:.2f} ({rows['false'].max():.2f}) "
            f"| {mean['spans_touched']:.3f} ({rows['spans_touched'].min():.3f}) "
            f"| {mean['negative_over_positive']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: argparse.Namespace) -> None:
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for toxic_share in arguments.toxic_shares:
        for seed in arguments.seeds:
            folder = arguments.work.resolve() / f"{toxic_share:g}-{seed}"
            rows += measured(run(folder, seed, toxic_share, arguments.cores), seed, toxic_share)
            table = pd.DataFrame(rows)
            table.to_csv(arguments.output / "false_discoveries.csv", index=False)
    text = summarised(table)
    (arguments.output / "false_discoveries.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("results/false_discoveries/runs"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--toxic-shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    parser.add_argument("--cores", type=int, default=1)
    main(parser.parse_args())
