"""Toxic beginnings of pairs with their toxic spans masked, and how the harmless side goes on.

The spans are what the toxic side of a pair has in place of the harmless one, token by token. For
each of them the context is the toxic side up to its end, and the continuation what follows it in
the harmless side.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from ifguide.models.token_texts import TokenText

Contexts = Literal["masked", "toxic", "both"]


def masked_contexts(
    harmless: Sequence[int],
    toxic: Sequence[int],
    *,
    begin: int,
    mask: Sequence[int],
    contexts: Contexts,
    positions: int,
) -> list[TokenText]:
    """Return a text for each toxic span of a pair: its context, after `begin`, and a continuation.

    harmless and toxic: token ids of both sides; mask: the ids that stand for a span. With `masked`
    all spans of a context are masked, with `toxic` none is, with `both` there is a text of either.
    A span with nothing after it has none. A context loses its beginning where a text exceeds a
    model's `positions`.
    """
    texts = []
    as_it_is: list[int] = [begin]
    masked: list[int] = [begin]
    pieces = SequenceMatcher(a=toxic, b=harmless, autojunk=False).get_opcodes()
    for kind, start, stop, _, harmless_stop in pieces:
        span = list(toxic[start:stop])
        as_it_is += span
        masked += span if kind == "equal" else mask
        continuation = list(harmless[harmless_stop:])[: positions - 1]
        if kind == "equal" or not continuation:
            continue
        kept = {"masked": [masked], "toxic": [as_it_is], "both": [masked, as_it_is]}[contexts]
        for context in kept:
            own = context[-(positions - len(continuation)) :]
            texts.append(TokenText([*own, *continuation], len(own)))
    return texts
