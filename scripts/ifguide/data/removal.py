"""What is taken from training, by dropping documents or by a mask, against the known toxic tokens.

A *span* is a run of toxic tokens of one document. Its first token carries the influence: what
follows is predicted by what stands before it, and a model that never learns to begin a span never
continues one. So a mask is judged by the spans that it touches, not by the share of their tokens.
"""

from collections.abc import Iterable

import numpy as np

from ifguide.data.corpus import PADDING, Corpus


def removal_quality(corpus: Corpus, removed: Iterable[np.ndarray]) -> dict[str, float | None]:
    """Return how well what is removed from training matches what is known to be toxic.

    removed: bool, shape of the tokens, by shard: tokens of dropped units, or selected ones.
    `removed_share`: of all tokens. `precision`: the share of removed tokens that are toxic, the
    purity of a mask; `recall`: the share of toxic tokens that are removed. `spans_touched`: the
    share of toxic spans with a removed token; `first_tokens_found`: with their first token removed.
    `outside_toxic_documents`: the share of removed tokens whose document has no toxic token.
    `document_precision` and `document_recall`: precision and recall of documents with a removed
    and with a toxic token. Only documents whose truth is known count there; None where there is
    nothing to count.
    """
    known = corpus.truth_known()
    count = corpus.meta["documents"]
    toxic = np.zeros(count, bool)
    removed_of = np.zeros(count, np.int64)
    all_removed = tokens = hits = truths = 0
    spans = _Spans()
    for shard, gone in enumerate(removed):
        documents = corpus.documents.shards[shard]
        gone = gone & (documents >= 0)
        all_removed += int(gone.sum())
        if corpus.truth is None:
            continue
        judged = (documents >= 0) & known[documents]
        gone, truth = gone & judged, corpus.truth.shards[shard] & judged
        tokens, truths = tokens + int(gone.sum()), truths + int(truth.sum())
        hits += int((gone & truth).sum())
        removed_of += np.bincount(documents[gone], minlength=count)
        toxic[documents[truth]] = True
        spans.add(truth, gone, documents)
    touched = removed_of > 0
    both = int((touched & toxic).sum())
    return {
        "removed_share": all_removed / corpus.meta["tokens"],
        "precision": _ratio(hits, tokens),
        "recall": _ratio(hits, truths),
        "spans_touched": _ratio(spans.touched, spans.count),
        "first_tokens_found": _ratio(spans.begun, spans.count),
        "outside_toxic_documents": _ratio(int(removed_of[~toxic].sum()), tokens),
        "document_precision": _ratio(both, int(touched.sum())),
        "document_recall": _ratio(both, int(toxic.sum())),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Spans:
    """Counts toxic spans over shards in order; one may reach from a shard into the next."""

    def __init__(self) -> None:
        self.count = self.begun = self.touched = 0
        self._last = PADDING  # the document of the last token, if that was toxic
        self._last_touched = False

    def add(self, truth: np.ndarray, removed: np.ndarray, documents: np.ndarray) -> None:
        """Count the spans of a shard: truth, removed, bool, and documents, all (blocks, T)."""
        truth, removed, documents = truth.ravel(), removed.ravel(), documents.ravel()
        if not len(truth):
            return
        owners = np.where(truth, documents, PADDING)
        begins = truth & (owners != np.append(self._last, owners[:-1]))
        # 0 is the span that the last shard ended in.
        span = np.cumsum(begins)
        hit = np.zeros(span[-1] + 1, bool)
        hit[span[truth & removed]] = True
        self.count += int(span[-1])
        self.begun += int((begins & removed).sum())
        self.touched += int(hit[1:].sum()) + bool(hit[0] and not self._last_touched)
        if truth[-1]:
            self._last_touched = bool(hit[-1]) or (span[-1] == 0 and self._last_touched)
        self._last = int(owners[-1])
