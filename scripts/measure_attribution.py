"""How well token scores find the tokens that are known to be toxic.

settings: {"ranking": {"pooling", "pool_over", "token_weight", "token_weight_power", "unmoved"},
"seed": int, "level": 0.95, "resamples": 200}. Judged are the candidates, label tokens that are not
special, of documents whose truth is known, in these splits: `all` documents; `choose` and `report`,
two halves that share no document, so that what is chosen by the first can be reported on the
second; and of each those with a toxic token, `toxic`, `choose_toxic` and `report_toxic`.
"""

from ifguide.workflow.command_line import add_score_arguments, argument_parser, run

from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from ifguide.data.corpus import Corpus, open_corpus
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.metrics import precision_recall_curve, ranking_intervals, thin_curve
from ifguide.files.artifacts import write_json
from ifguide.files.tables import write_table
from ifguide.influence.pieces import candidate_documents
from ifguide.influence.score_files import open_scores, scores_made_from
from ifguide.influence.token_weights import TokenRanking
from ifguide.influence.truth_splits import truth_splits
from ifguide.seeds import derive_seed


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    made_from = scores_made_from(arguments.directions, arguments.scored)
    shards = open_scores(arguments.scores, corpus, made_from)
    columns = corpus.tokens.shards, corpus.documents.shards
    vocabulary = corpus.meta["vocabulary_size"]
    ranked = TokenRanking(shards, *columns, settings["ranking"], vocabulary)
    # A shard at a time: few tokens of a large corpus may be known.
    ranking = (ranked(*shard) for shard in zip(shards, *columns, strict=True))
    truth, scores, documents = known_tokens(corpus, ranking)
    seed = derive_seed(settings["seed"], "intervals", "attribution")
    base_rate = float(truth.mean()) if len(truth) else 0.0
    rows = []
    for split, members in truth_splits(truth, documents, settings["seed"]).items():
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
    write_json(
        arguments.output,
        {
            "benchmark": "attribution",
            "model": arguments.model,
            "method": arguments.ranking,
            "seed": arguments.training_seed,
            "rows": rows,
            "base_rate": base_rate,
        },
    )
    curve = thin_curve(precision_recall_curve(truth, scores))
    table = pd.DataFrame(
        {
            "ranking": arguments.ranking,
            "recall": curve.recall,
            "precision": curve.precision,
            "base_rate": base_rate,
        }
    )
    write_table(arguments.curve, table)


def known_tokens(
    corpus: Corpus, shards: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, score and document of each scored candidate whose truth is known."""
    columns = []
    for shard, (scores, truth) in enumerate(zip(shards, corpus.truth.shards, strict=True)):
        documents = candidate_documents(corpus, shard)[:, 1:]
        scores, truth = scores[:, 1:], truth[:, 1:]
        kept = (documents >= 0) & corpus.truth_known()[documents] & ~np.isnan(scores)
        columns.append((truth[kept], scores[kept], documents[kept]))
    truth, scores, documents = (np.concatenate(column) for column in zip(*columns, strict=True))
    return truth, scores, documents


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    add_score_arguments(parser)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ranking", required=True, help="name of the ranking in the summary")
    parser.add_argument("--training-seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--curve", type=Path, required=True)
    run(main, parser)
