"""The toxicity of every document or block of a corpus by a classifier, as files hold it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ifguide.data.corpus import Corpus
from ifguide.files.artifacts import open_array, read_json, require_same


def unit_toxicity(corpus: Corpus, paths: Sequence[Path], by: str) -> np.ndarray:
    """Return the toxicity of every unit by one statistic of its pieces, then by their mean.

    float32 (units, 2). Raises InputError where it is not of this corpus.
    """
    shards = []
    for path in paths:
        record = read_json(path.with_suffix(".json"))
        require_same("tokens", corpus.content_sha256, record["tokens_sha256"], path)
        columns = [record["columns"].index(name) for name in (by, "mean")]
        shards.append(open_array(path)[:, columns])
    return np.concatenate(shards)
