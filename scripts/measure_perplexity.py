"""Perplexity of held-out documents: all of them, and toxic and non-toxic ones where truth is known.

With --reference, the uncensored model, also KL(p_reference || p_model) of the next token in nats.

settings: {"steps": {key: options} of the decode step, "seed": int, "resamples": int, "level":
float}. --given: what the step needs, {key: {need: paths}}.
"""

from ifguide.workflow.command_line import argument_parser, run

from argparse import Namespace
from pathlib import Path

import numpy as np

from ifguide.data.corpus import open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.fluency import document_fluency
from ifguide.evaluation.generation_metrics import metric_row
from ifguide.evaluation.intervals import perplexity_interval, weighted_mean_interval
from ifguide.evaluation.metrics_file import add_measurement_arguments, write_metrics
from ifguide.methods.step import DecodingJob, decoding
from ifguide.models.loading import compute_device, load_model
from ifguide.seeds import derive_seed


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    model = load_model(arguments.model).to(compute_device())
    job = DecodingJob(model, load_tokenizer(arguments.model), corpus.block_size)
    reference = arguments.reference and load_model(arguments.reference).to(compute_device())
    with decoding(settings["steps"], arguments.given, job) as guidance:
        found = document_fluency(model, corpus, reference=reference, guidance=guidance)
    losses, labels, divergences = found.losses, found.labels, found.divergences
    splits = {"all": labels > 0}
    if corpus.truth is not None:
        documents = np.concatenate(corpus.documents.shards)
        toxic = np.zeros(len(losses), bool)
        toxic[np.unique(documents[np.concatenate(corpus.truth.shards)])] = True
        measured = corpus.truth_known() & (labels > 0)
        splits |= {"toxic": toxic & measured, "nontoxic": ~toxic & measured}
    seed = derive_seed(settings["seed"], "intervals", arguments.benchmark)
    intervals = (settings["resamples"], seed, settings["level"])
    rows = []
    units: dict[str, dict] = {"losses": {}, "sums": {}}
    for split, members in splits.items():
        if not members.any():
            continue
        tokens, count = labels[members], int(members.sum())
        interval = perplexity_interval(losses[members], tokens, *intervals)
        rows.append(metric_row(split, "perplexity", interval, count))
        units["losses"][split] = {
            "loss_sum": losses[members].tolist(),
            "tokens": tokens.tolist(),
        }
        if divergences is not None:
            interval = weighted_mean_interval(divergences[members], tokens, *intervals)
            rows.append(metric_row(split, "next_token_kl", interval, count))
            by_unit = {"sum": divergences[members].tolist(), "tokens": tokens.tolist()}
            units["sums"][split] = {"next_token_kl": by_unit}
    write_metrics(arguments, rows, **units)


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--reference", type=Path, help="directory of the uncensored model")
    add_measurement_arguments(parser)
    run(main, parser)
