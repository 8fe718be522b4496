"""Which harmless phrases a mask erases: their first token's probability before and after training.

settings: {"phrases": how many, "occurrences": of each at most so many, "seed": int}. Contexts are
harmless where it is known which tokens are toxic; else they are all that the mask selects from.
"""

from ifguide.workflow.command_line import argument_parser, labelled_path, run

from argparse import Namespace
from pathlib import Path

import pandas as pd

from ifguide.data.corpus import open_corpus
from ifguide.data.tokenizers import load_tokenizer
from ifguide.evaluation.erasure import (
    erased_phrases,
    occurrences,
    probabilities,
    some_of_each,
)
from ifguide.files.tables import write_table
from ifguide.influence.selection_files import open_mask
from ifguide.models.loading import compute_device, load_model
from ifguide.seeds import derive_seed

COLUMNS = [
    "method",
    "phrase",
    "occurrences",
    "selected",
    "probability_before",
    "probability_after",
]


def main(arguments: Namespace) -> None:
    settings = arguments.settings
    corpus = open_corpus(arguments.corpus)
    tokenizer = load_tokenizer(arguments.before)
    seed = derive_seed(settings["seed"], "erased phrases")
    before = load_model(arguments.before).to(compute_device())
    trained = dict(map(labelled_path, arguments.after))
    tables = [pd.DataFrame(columns=COLUMNS)]
    for method, folder in map(labelled_path, arguments.masks):
        masks = open_mask(Path(folder), corpus)[0].shards
        phrases = erased_phrases(corpus, masks, settings["phrases"])
        found = occurrences(corpus, masks, phrases)
        places = some_of_each(found, settings["occurrences"], seed)
        after = load_model(trained[method]).to(compute_device())
        places = places.assign(
            before=probabilities(before, corpus, places),
            after=probabilities(after, corpus, places),
        )
        counted = found.groupby("phrase")["selected"].agg(["size", "sum"])
        means = places.groupby("phrase")[["before", "after"]].mean()
        texts = [tokenizer.decode(list(phrase)) for phrase in phrases]
        columns = [texts, counted["size"], counted["sum"], means["before"], means["after"]]
        table = dict(zip(COLUMNS[1:], columns, strict=True))
        tables.append(pd.DataFrame({"method": method, **table}, index=range(len(phrases))))
    write_table(arguments.output, pd.concat(tables))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--masks", nargs="+", required=True, metavar="METHOD=SELECTION")
    parser.add_argument("--before", type=Path, required=True, help="the uncensored model")
    parser.add_argument("--after", nargs="+", required=True, metavar="METHOD=MODEL")
    parser.add_argument("--output", type=Path, required=True)
    run(main, parser)
