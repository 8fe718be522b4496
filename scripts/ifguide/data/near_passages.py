"""The nearest passages of texts to prompts, by the cosine of TF-IDF vectors of their words.

    w(t) = tf(t) idf(t),   idf(t) = ln( (1 + N) / (1 + df(t)) ) + 1

over the N prompts. The vocabulary is that of the prompts, so that the memory does not grow with the
texts; each word of a passage that no prompt has adds the mean square of the prompts' words to the
passage's squared norm. A text's passages are sliding windows of about one and a half median
prompts, a third of a window apart: a prompt of median length that stands anywhere in a text lies
whole within one of them.

A passage is near a prompt where their cosine is at least `least`, it has half as many words as the
prompt or more, and the two share a word that few prompts have. The words that many have make nearly
all the products, and are multiplied only where the others leave the cosine within reach: with r the
rarer words and c the common ones, of unit vectors p and w,

    cos(p, w) <= p_r w_r + |p_c| |w_c|.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import norm
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from ifguide.data.shared_ngrams import Words
from ifguide.errors import InputError

PIECES_OF_A_WINDOW = 3
# Cosines of equal vectors may be rounded to less than 1.
ROUNDING = 1e-9
# A word is common where more than this share of the prompts has it, and more than this number.
COMMON_SHARE = 0.05
COMMON_PROMPTS = 200


class Near(NamedTuple):
    """Passages near a prompt, arrays of one length: texts[i] has words[i] : words[i] + window."""

    prompts: np.ndarray
    texts: np.ndarray
    words: np.ndarray
    cosines: np.ndarray


class NearPassages:
    """Prompts as unit vectors, against which passages of texts are held."""

    def __init__(self, prompts: Sequence[Words], least: float) -> None:
        """prompts: their words. least: the cosine in (0, 1] from which passages are near.

        Raises InputError where no prompt has a word.
        """
        lengths = [len(words) for words in prompts if words]
        if not lengths:
            raise InputError("no prompt has a word; check the benchmark's files")
        self.least = least
        self.piece = max(2, round(float(np.median(lengths)) / 2))
        self.window = PIECES_OF_A_WINDOW * self.piece
        self._lengths = np.array([len(words) for words in prompts])
        self._vectorizer = CountVectorizer(analyzer=_given)
        counts = self._vectorizer.fit_transform(prompts)
        weighting = TfidfTransformer().fit(counts)
        self._idf = weighting.idf_
        self._unknown = float((counts @ self._idf**2).sum() / counts.sum())
        self._prompts = weighting.transform(counts).tocsr()
        holders = np.bincount(counts.indices, minlength=counts.shape[1])
        common = holders > max(COMMON_SHARE * len(prompts), COMMON_PROMPTS)
        self._common = sparse.diags_array(common.astype(float)).tocsr()
        self._common_norms = norm(self._prompts @ self._common, axis=1)
        rarer = self._prompts - self._prompts @ self._common
        rarer.eliminate_zeros()
        self._rarer = rarer.T.tocsr()

    def near(self, texts: Sequence[Words]) -> Near:
        """Return the passages of texts, by their words, that are near a prompt."""
        pieces = [
            (number, start)
            for number, words in enumerate(texts)
            for start in range(0, len(words), self.piece)
        ]
        if not pieces:
            return Near(*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0))
        cut = [texts[number][start : start + self.piece] for number, start in pieces]
        windows, first = _windows(np.array([number for number, _ in pieces]))
        vectors, lengths = self._passages(cut, windows)
        products = (vectors @ self._rarer).tocoo()
        rows, prompts = products.row, products.col
        common_norms = norm(vectors @ self._common, axis=1)
        reach = products.data + common_norms[rows] * self._common_norms[prompts]
        possible = (reach >= self.least - ROUNDING) & (2 * lengths[rows] >= self._lengths[prompts])
        rows, prompts = rows[possible], prompts[possible]
        cosines = np.asarray(vectors[rows].multiply(self._prompts[prompts]).sum(axis=1)).ravel()
        near = cosines >= self.least - ROUNDING
        places = np.array(pieces)[first[rows[near]]]
        return Near(prompts[near], places[:, 0], places[:, 1], np.minimum(cosines[near], 1.0))

    def _passages(
        self, pieces: Sequence[Words], windows: sparse.csr_matrix
    ) -> tuple[sparse.csr_matrix, np.ndarray]:
        """Return windows as unit vectors, less what no prompt has, and their numbers of words."""
        known = windows @ self._vectorizer.transform(pieces)
        lengths = windows @ np.array([len(words) for words in pieces])
        unknown = lengths - np.asarray(known.sum(axis=1)).ravel()
        weighted = known.multiply(self._idf[None, :]).tocsr()
        squares = np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel()
        norms = np.sqrt(squares + unknown * self._unknown)
        return (sparse.diags_array(1 / np.maximum(norms, 1)) @ weighted).tocsr(), lengths


def _given(words: Words) -> Words:
    return words


def _windows(texts: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Return which pieces each window has, (windows, pieces) of 0 and 1, and the first of each.

    texts: of each piece, in order, the text that it belongs to. A window begins at each piece that
    has enough of its text after it, and one at the first piece of a text that has too few.
    """
    count = len(texts)
    begins = np.flatnonzero(np.diff(texts, prepend=-1))
    sizes = np.diff(np.append(begins, count))
    number_of = np.maximum(1, sizes - PIECES_OF_A_WINDOW + 1)
    first = np.concatenate([np.arange(b, b + n) for b, n in zip(begins, number_of, strict=True)])
    last = np.minimum(first + PIECES_OF_A_WINDOW, np.repeat(begins + sizes, number_of))
    spans = last - first
    rows = np.repeat(np.arange(len(first)), spans)
    columns = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
    ones = np.ones(len(rows))
    return sparse.csr_matrix((ones, (rows, columns)), shape=(len(first), count)), first
