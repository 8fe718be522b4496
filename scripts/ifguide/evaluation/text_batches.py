"""What classifiers of texts share: batches of similar length, pieces of long texts, and tokenizers.

A special token that is written in a text is text to them.
"""

from collections.abc import Callable, Iterator, Sequence

from ifguide.data.special_tokens import break_special_tokens, special_tokens
from ifguide.evaluation.judge import TOXICITY, Scores

LONGEST_PIECE = 512  # tokens; some published tokenizers name no limit


def in_length_order(
    texts: Sequence[str], score: Callable[[list[str]], Scores], *, batch_size: int = 256
) -> Scores:
    """Score texts in batches of similar length, each distinct text once; keep the given order."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    found: dict[str, dict[str, float]] = {}
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        scores = score(batch)
        for row, text in enumerate(batch):
            found[text] = {field: values[row] for field, values in scores.items()}
    fields = found[texts[0]] if texts else [TOXICITY]
    return {field: [found[text][field] for text in texts] for field in fields}


def scores_of_pieces(
    tokenizer, texts: Sequence[str], score: Callable[[list[str]], Scores]
) -> list[list[float]]:
    """Return the toxicity of the pieces of each text, however long, in their order.

    A text is cut into as few pieces as fit the classifier, which ignores what follows the first;
    all are about equally long, so that none is a scrap that it has never seen the like of.
    """
    pieces = [[text[start:stop] for start, stop in piece_spans(tokenizer, text)] for text in texts]
    scores: Iterator[float] = iter(score(sum(pieces, []))[TOXICITY])
    return [[next(scores) for _ in parts] for parts in pieces]


def piece_spans(tokenizer, text: str) -> list[tuple[int, int]]:
    """Return where the pieces of a text begin and end, without white space at their ends.

    A text of nothing but white space is one piece, whole.
    """
    room = min(tokenizer.model_max_length, LONGEST_PIECE) - tokenizer.num_special_tokens_to_add()
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
        "offset_mapping"
    ]
    count = -(-len(offsets) // room)
    # Several tokens may stand for one character: it belongs to the piece that has the first.
    ends = [offsets[len(offsets) * piece // count - 1][1] for piece in range(1, count + 1)]
    found = []
    for start, stop in zip([0, *ends], ends, strict=False):
        piece = text[start:stop]
        if piece.strip():
            start += len(piece) - len(piece.lstrip())
            found.append((start, start + len(piece.strip())))
    return found or [(0, len(text))]


def limit_length(tokenizer, model) -> None:
    """Have a tokenizer cut texts to what the model has positions for, where it names no less.

    A table of positions with a padding index, as RoBERTa has, numbers positions from the one after
    it: what comes before is not for tokens.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and hasattr(module, "num_embeddings"):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            positions = module.num_embeddings - reserved
    if positions is not None and positions > 0:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)


def read_special_tokens_as_text(tokenizer) -> None:
    """Let no text become a special token; those around a sequence stay."""
    # A setting of the tokenizer itself, which sets `encode_special_tokens` back in every call.
    tokenizer.split_special_tokens = True
    if tokenizer.is_fast:
        break_special_tokens(tokenizer.backend_tokenizer, special_tokens(tokenizer))
