"""How well token scores find the tokens that are known to be toxic.

settings: {"seed": int, "level": 0.95, "resamples": 200}. Split `all` is every label token of
documents whose truth is known; split `toxic` keeps the documents with a toxic token.
"""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from command_line import argument_parser, run
from ifguide.artifacts import atomic_path, read_json, write_json
from ifguide.corpus import open_corpus
from ifguide.generation_metrics import metric_row
from ifguide.metrics import precision_at, precision_recall_curve, ranking_intervals, thin_curve
from ifguide.seeds import derive_seed
from select_tokens import open_scores


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    shards, _ = open_scores(arguments.scores, corpus)
    scores = np.concatenate([shard[:, 1:].ravel() for shard in shards])
    documents = np.concatenate([shard[:, 1:].ravel() for shard in corpus.documents.shards])
    truth = np.concatenate([shard[:, 1:].ravel() for shard in corpus.truth.shards])
    kept = (documents >= 0) & corpus.truth_known()[documents]
    scores, documents, truth = scores[kept], documents[kept], truth[kept]
    in_toxic = np.isin(documents, np.unique(documents[truth]))
    seed = derive_seed(settings["seed"], "intervals", "attribution")
    rows = []
    for split, members in (("all", np.ones_like(truth)), ("toxic", in_toxic)):
        intervals = ranking_intervals(
            truth[members],
            scores[members],
            documents[members],
            settings["resamples"],
            seed,
            settings["level"],
        )
        units = len(np.unique(documents[members]))
        rows += [metric_row(split, name, found, units) for name, found in intervals.items()]
    selected_share = None
    if arguments.selection:
        selected_share = read_json(arguments.selection / "selection.json")["selected_share"]
    write_json(
        arguments.output,
        {
            "benchmark": "attribution",
            "model": arguments.model,
            "method": f"{arguments.direction}/{arguments.attribution}",
            "seed": arguments.training_seed,
            "rows": rows,
            "base_rate": float(truth.mean()),
            "precision_at_0.001": precision_at(truth, scores, 0.001),
            "precision_at_selected_share": (
                precision_at(truth, scores, selected_share) if selected_share else None
            ),
        },
    )
    curve = thin_curve(precision_recall_curve(truth, scores))
    table = pd.DataFrame(
        {
            "direction": arguments.direction,
            "attribution": arguments.attribution,
            "recall": curve.recall,
            "precision": curve.precision,
            "base_rate": truth.mean(),
            "selected_share": selected_share,
        }
    )
    with atomic_path(arguments.curve) as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--scores", type=Path, nargs="+", required=True)
    parser.add_argument("--selection", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--direction", required=True)
    parser.add_argument("--attribution", required=True)
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--curve", type=Path, required=True)
    run(main, parser)
