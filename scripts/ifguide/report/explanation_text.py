"""Explained documents as text for a terminal, in colour or without."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ifguide.influence.explanation import Reason, TokenReasons
from ifguide.report.score_shades import STEPS, score_scale, shade

# Of the 256 colours that terminals have, light to strong: orange above zero and blue below, which
# differ for every common kind of colour blindness. Black text is legible on all of them.
POSITIVE = (230, 223, 216, 215, 208)
NEGATIVE = (195, 159, 153, 117, 75)
RESET = "\x1b[0m"


@dataclass(frozen=True)
class ExplainedDocument:
    """A ranked document, or a part of it to show.

    `unit`: block or document, by its number; `rank` of `ranked`; s `flagged` tokens of summed score
    `flagged_sum`; `tokens` text, `scores` as stored, `ranking` as weighted, `quantiles` and
    `reasons` of all its tokens; `shown`: indices of those to print; `asked`: which of all are of
    the phrase that was asked for, bool.
    """

    unit: str
    number: int
    rank: int
    ranked: int
    flagged: int
    flagged_sum: float
    tokens: list[str]
    scores: np.ndarray
    ranking: np.ndarray
    quantiles: np.ndarray
    reasons: TokenReasons
    shown: np.ndarray
    asked: np.ndarray


def selection_line(name: str, record: dict) -> str:
    """Return one line on a selection, by its record (selection.json)."""
    settings, limit = record["settings"], record["settings"]["limit"]
    most = f"at most {record['limit_tokens']:,} tokens"
    match limit:
        case {"false_discovery_rate": rate}:
            set_by, most = f"false discovery rate {rate:g}", "all of them"
        case {"tokens_of": other}:
            set_by = f"as many as {other} has"
        case _:
            set_by = f"quantile {settings['quantile']:g}"
    return (
        f"selection {name}: tokens with a score above {record['threshold']:.4g} ({set_by}) and "
        f"{settings['window']} on each side, {most}; {record['selected_tokens']:,} are selected\n"
    )


def document_text(document: ExplainedDocument, window: int, *, colour: bool) -> str:
    """Return a heading, the text and one line a token; ends with a line feed.

    Whatever a token holds, no character of it acts on the terminal.
    """
    selected = document.reasons.selected
    scale = score_scale([document.ranking])
    steps = [shade(score, scale) for score in document.ranking]
    places = document.shown.tolist()
    heading = (
        f"{document.unit} {document.number}: rank {document.rank:,} of {document.ranked:,}; "
        f"{document.flagged:,} tokens above the threshold (scores sum to "
        f"{document.flagged_sum:.4g}), {int(selected.sum()):,} of {len(selected):,} selected\n"
    )
    pieces = [_printable(document.tokens[place]) for place in places]
    if colour:
        text = "".join(
            _painted(piece, steps[place], selected[place])
            for piece, place in zip(pieces, places, strict=True)
        )
    else:
        text = _bracketed(pieces, selected[places])
    weighted = not np.array_equal(document.scores, document.ranking)
    names = ["", "token", "score", *(["ranked by"] if weighted else []), "quantile", "text"]
    rows = [
        [
            ">" if document.asked[place] else "",
            str(place),
            f"{document.scores[place]:.4g}",
            *([f"{document.ranking[place]:.4g}"] if weighted else []),
            f"{document.quantiles[place]:.4f}",
            repr(document.tokens[place]),
        ]
        for place in places
    ]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]

    def line(cells: list[str], step: int, chosen: bool, rest: tuple[str, str]) -> str:
        *numbers, token = cells
        written = [cell.rjust(width) for cell, width in zip(numbers, widths, strict=False)]
        painted = _painted(token, step, chosen) if colour else token
        written.append(painted + " " * (widths[-1] - len(token)))
        return " ".join([*written, *rest]).rstrip() + "\n"

    lines = [line(names, 0, False, ("selected", "why"))]
    lines += [
        line(cells, steps[place], bool(selected[place]), _decision(document, place, window))
        for cells, place in zip(rows, places, strict=True)
    ]
    return f"{heading}\n{text}\n\n{''.join(lines)}"


def _decision(document: ExplainedDocument, place: int, window: int) -> tuple[str, str]:
    """Whether a token is selected, as wide as the heading, and why."""
    reasons = document.reasons
    reason, source = reasons.reasons[place], int(reasons.sources[place])
    reached = Reason.ABOVE.value
    if not reasons.above[place]:
        reached = f"within {window} of token {source} {document.tokens[source]!r}"
    if reason in (Reason.CUT_WITHIN, Reason.CUT_BEFORE):
        why = f"{reached}, but {reason.value}"
    else:
        why = reason.value if reason is Reason.BELOW else reached
    return ("yes" if reasons.selected[place] else "no").ljust(len("selected")), why


def _painted(text: str, step: int, selected: bool) -> str:
    codes = ["1;4"] if selected else []
    if step:
        codes.append(f"38;5;16;48;5;{(POSITIVE if step > 0 else NEGATIVE)[abs(step) - 1]}")
    return f"\x1b[{';'.join(codes)}m{text}{RESET}" if codes else text


def _bracketed(pieces: list[str], selected: np.ndarray) -> str:
    """Return the text with brackets around its selected stretches, a space before them left out."""
    text = ""
    for chosen, run in groupby(zip(pieces, selected, strict=True), key=lambda pair: bool(pair[1])):
        stretch = "".join(piece for piece, _ in run)
        space = " " * (chosen and stretch.startswith(" "))
        text += f"{space}[{stretch[len(space) :]}]" if chosen else stretch
    return text


def _printable(text: str) -> str:
    """Escape what would act on the terminal, line feeds apart."""
    return "".join(
        character if character.isprintable() or character == "\n" else repr(character)[1:-1]
        for character in text
    )


def colour_legend() -> str:
    """Return the line that says what the colours of `document_text` mean."""
    more = "".join(_painted("  ", step, False) for step in range(1, STEPS + 1))
    less = "".join(_painted("  ", -step, False) for step in range(STEPS, 0, -1))
    return (
        f"{less} learning the token makes toxic continuations less likely, {more} more likely; "
        f"{_painted('selected', 0, True)}\n"
    )
