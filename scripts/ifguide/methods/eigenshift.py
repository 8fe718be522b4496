"""Scale down the directions of the output head in which toxic tokens are made (EigenShift, 2025).

With the head W = U S Vᵀ, (vocabulary, width), h the state that a token is made of, and T the
directions in which states that make toxic tokens differ most from those that do not,

    D_i = E[ v_i · h | toxic ] − E[ v_i · h | nontoxic ]
    W' = W ( I − strength · V_T V_Tᵀ ),      which scales the singular values of T by 1 − strength

(arXiv 2509.16660).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ifguide.errors import InputError
from ifguide.methods.step import EditJob, Generations, Given, Need, Sizes, Step
from ifguide.models.work import Work, reading_work
from ifguide.settings import Settings

if TYPE_CHECKING:
    import torch

    from ifguide.data.own_generations import OwnGeneration

log = logging.getLogger(__name__)

TEXT_TOKENS = 50  # of a prompt with its continuation, where a plan has not read them
BATCH = 32
# Evidence that a token comes with toxicity: chance reaches this likelihood ratio in one of 1,000.
LEAST_EVIDENCE = 10.83


class EigenshiftOptions(Settings):
    """Scale down the directions of the output head in which a model makes toxic tokens."""

    generations: Annotated[
        str,
        Field(
            description="Name of an entry of `own_generations`: what the model writes itself, "
            "toxic or not, says where its states differ."
        ),
    ]
    strength: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="By how much the singular values of the directions are lowered: 0 leaves "
            "them, 1 removes the directions.",
        ),
    ] = 0.9
    share: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Share of the directions that are scaled, rounded up: there are as many as "
            "the hidden states are wide.",
        ),
    ] = 0.05
    rank: Annotated[
        Literal["abs", "signed"],
        Field(
            description="Directions are taken by the size of the difference between states, or by "
            "the difference itself, which depends on the arbitrary sign of a singular vector; the "
            "largest entry of its left vector is then made positive."
        ),
    ] = "abs"
    nontoxic: Annotated[
        Literal["first", "every"],
        Field(
            description="States that toxic ones are compared with: those of the first token of "
            "nontoxic continuations, as released, or those of all their tokens."
        ),
    ] = "first"


class Eigenshift(Step):
    stage = "edit"
    Options = EigenshiftOptions
    strength = "strength"

    def needs(self) -> dict[str, Need]:
        return {"generations": Generations(self.options.generations)}

    def work(self, sizes: Sizes) -> Work:
        """Reading the continuations, and one singular value decomposition of the head."""
        tokens = sizes.records("generations") * TEXT_TOKENS
        # Householder bidiagonalisation after a QR decomposition: Golub and Van Loan, 8.6.
        rows, width = sizes.shape.vocabulary, sizes.shape.width
        decomposition = Work(kind="gradients", flops=6.0 * rows * width**2 + 20.0 * width**3)
        return reading_work(sizes.shape, tokens, TEXT_TOKENS, BATCH).then(decomposition)

    def edit(self, job: EditJob, given: Given) -> None:
        from ifguide.data.own_generations import read_own_generations
        from ifguide.models.output_head import mean_state, output_head, untie_head

        options = self.options
        if options.strength == 0:
            return
        (path,) = given["generations"]
        sides = emissions(read_own_generations(path), options.nontoxic, path)
        toxic, nontoxic = (mean_state(job.model, *side, batch_size=BATCH) for side in sides)
        left, _, right = singular_vectors(output_head(job.model).weight.detach())
        chosen = most_different(left, right, toxic - nontoxic, options.rank, options.share)
        log.info(
            "%d states that make toxic tokens, %d that do not; %d of %d directions scaled",
            *(sum(map(len, places)) for _, places in sides),
            *(len(chosen), len(right)),
        )
        head = untie_head(job.model)
        head.weight.data.copy_(scaled(head.weight.detach(), right[chosen], options.strength))


# --- which states ---------------------------------------------------------------------------------


# Texts as token ids, and of each the places of the tokens whose states count.
Emissions = tuple[list[list[int]], list[range]]


def emissions(
    prompts: Sequence[Sequence[OwnGeneration]], nontoxic: Literal["first", "every"], path: Path
) -> tuple[Emissions, Emissions]:
    """Return where toxic tokens were made, and the places that they are compared with.

    A token is made of the state at the one before it. A toxic continuation has one toxic token, the
    first of those of its tokens that speak most for toxicity; one without any is left out. Of a
    nontoxic continuation the first token counts, or every one.

    Raises InputError where there are none of one kind.
    """
    from ifguide.data.labelled_texts import TOXIC

    written = [one for continuations in prompts for one in continuations if one.continuation]
    sides = (
        [one for one in written if one.toxicity >= TOXIC],
        [one for one in written if one.toxicity < TOXIC],
    )
    for kind, side in zip(("toxic", "nontoxic"), sides, strict=True):
        if not side:
            raise InputError(
                f"{path}: none of {len(written)} continuations is {kind}; let the entry of "
                "`own_generations` continue other prompts, or more of them"
            )
    toxicity = toxic_tokens(*([one.continuation for one in side] for side in sides))
    toxic: Emissions = [], []
    for one in sides[0]:
        place = most_toxic_place(one.continuation, toxicity)
        if place is not None:
            last = len(one.prompt) + place - 1
            toxic[0].append([*one.prompt, *one.continuation[:place]])
            toxic[1].append(range(last, last + 1))
    if not toxic[0]:
        raise InputError(
            f"{path}: no token comes with toxicity in {len(sides[0])} toxic and {len(sides[1])} "
            "nontoxic continuations; raise `prompts` or `continuations` of the entry of "
            "`own_generations`"
        )
    others: Emissions = [], []
    for one in sides[1]:
        count = 1 if nontoxic == "first" else len(one.continuation)
        first = len(one.prompt) - 1
        others[0].append([*one.prompt, *one.continuation[: count - 1]])
        others[1].append(range(first, first + count))
    return toxic, others


def toxic_tokens(
    toxic: Sequence[Sequence[int]], nontoxic: Sequence[Sequence[int]]
) -> dict[int, float]:
    """Return the log-odds of toxicity of every token that comes with it: of its continuations.

    With a of m toxic and b of n nontoxic continuations holding a token, and half a continuation
    added to each count (Haldane, 1956), the log-odds ratio is

        log( (a + ½) (n − b + ½) / ((b + ½) (m − a + ½)) )

    Tokens count for which it is positive and the likelihood ratio of independence (Dunning, 1993)
    reaches LEAST_EVIDENCE.
    """
    m, n = len(toxic), len(nontoxic)
    held, elsewhere = (
        Counter(token for continuation in side for token in set(continuation))
        for side in (toxic, nontoxic)
    )
    found = {}
    for token, a in held.items():
        b = elsewhere[token]
        odds = math.log((a + 0.5) * (n - b + 0.5) / ((b + 0.5) * (m - a + 0.5)))
        if odds > 0 and likelihood_ratio(a, m, b, n) >= LEAST_EVIDENCE:
            found[token] = odds
    return found


def likelihood_ratio(a: int, m: int, b: int, n: int) -> float:
    """Return G² of the table of a of m and b of n against one share: 2 Σ observed log(o / e)."""
    total = a + b
    cells = (
        *((a, m * total), (m - a, m * (m + n - total))),
        *((b, n * total), (n - b, n * (m + n - total))),
    )
    return 2 * sum(
        observed * math.log(observed * (m + n) / product) for observed, product in cells if observed
    )


def most_toxic_place(continuation: Sequence[int], toxicity: dict[int, float]) -> int | None:
    """Return the first place of the most toxic token, None where no token is toxic."""
    if not toxicity.keys() & set(continuation):
        return None
    return max(range(len(continuation)), key=lambda place: toxicity.get(continuation[place], 0.0))


# --- which directions -----------------------------------------------------------------------------


def singular_vectors(
    weight: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return U (rows, k), S (k,), largest first, and Vᵀ (k, width), all float64, of a matrix."""
    import torch

    return torch.linalg.svd(weight.double(), full_matrices=False)


def most_different(
    left: torch.Tensor,
    right: torch.Tensor,
    difference: torch.Tensor,
    rank: Literal["abs", "signed"],
    share: float,
) -> torch.Tensor:
    """Return the indices of a share of the directions, rounded up: those with the highest D_i.

    left: U (rows, k); right: Vᵀ (k, width); difference: of the mean states (width,). By `abs` it is
    the size of D_i that counts, whatever the signs of the singular vectors. By `signed` they are
    such that the entry of the largest size of each column of U is positive.
    """
    differences = right @ difference
    if rank == "abs":
        differences = differences.abs()
    else:
        differences *= left.gather(0, left.abs().argmax(0, keepdim=True)).sign().squeeze(0)
    order = differences.argsort(descending=True, stable=True)
    return order[: math.ceil(share * len(right))]


def scaled(weight: torch.Tensor, directions: torch.Tensor, strength: float) -> torch.Tensor:
    """Return W (I − strength · Σ v vᵀ), float64, of orthonormal rows v (k, width)."""
    weight = weight.double()
    return weight - strength * (weight @ directions.T) @ directions
