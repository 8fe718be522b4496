"""How tokens are scored and selected."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ifguide.settings import OrAbsent, Settings, section
from ifguide.workflow.config.values import Distinct, Files, Name, Part, name_except

# The factors of a proxy lie in folders of these names, beside those of directions, averages and
# rivals.
DirectionName = name_except("covariances", "eigenvalues", "gradients")
SelectionName = name_except("scores")

Unmoved = Annotated[
    bool,
    Field(
        description="Leave `position` scores at the place that predicts a token, one before it, as "
        "the released code does."
    ),
]
Pooling = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Part of a score that is replaced by the mean score of all occurrences of the "
        "same token in the corpus, before it is weighted: 1 ranks words, 0 occurrences.",
    ),
]
PoolOver = Annotated[
    Literal["token", "context"],
    Field(
        description="What that mean is taken over: all occurrences of the token, or those with the "
        "same token before them and those with the same token after them, half each. A word that "
        "is harmful in one context and harmless in another is told apart by its contexts only."
    ),
]
TokenWeight = Annotated[
    Literal["none", "inverse_document_frequency"],
    Field(
        description="What multiplies scores before tokens are ranked; stored scores stay inner "
        "products."
    ),
]
TokenWeightPower = Annotated[
    float, Field(gt=0, description="Power to which the token weight is raised.")
]


class Factors(Settings):
    """EK-FAC factors of the proxy's Hessian."""

    blocks: int | None = Field(
        1024,
        ge=1,
        description="Number of blocks that the factors are estimated from, sampled over the "
        "corpus; null takes all.",
    )
    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of jobs that each pass is divided into; no result depends on it.",
    )
    positions: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of each block's positions that the covariances are summed over, drawn "
        "by the block's index; the eigenvalue correction takes all.",
    )
    labels: Literal["sampled", "true"] = Field(
        "sampled",
        description="Labels drawn from the model (true Fisher) or the corpus's own (empirical "
        "Fisher).",
    )
    batch_size: int = Field(16, ge=1, description="Blocks in one batch.")
    logits_budget_mib: int = Field(64, ge=1, description="Memory that logits may take at once.")


class Direction(Settings):
    """A query direction."""

    toxic: str = Field(
        description="Name of the query set with toxic continuations, or of an entry of "
        "`own_generations`: the toxic ones of what the direction's model writes itself."
    )
    safe: str | None = Field(
        None,
        description="Name of the query set with harmless continuations; null makes the query "
        "one-sided.",
    )
    hessian: Literal["ekfac", "ekfac_square_root", "identity"] = Field(
        "ekfac", description="What preconditions the query: EK-FAC, its square root, or nothing."
    )
    relative_damping: float = Field(
        0.1, gt=0, description="Damping as a multiple of a layer's mean eigenvalue."
    )
    model: str | None = Field(
        None,
        description="Name of the model whose gradients are taken; null takes `influence.model`.",
    )
    layers: str = Field(
        "",
        json_schema_extra={"format": "regex"},
        description="Regular expression that the names of tracked layers must contain; the others "
        "are left out of the direction (they count as zero).",
    )
    measure: Distinct[Literal["loss", "position"]] = Field(
        [], description="Attributions to compare with the known toxic tokens."
    )


class Average(Settings):
    """Mean scores of several directions."""

    directions: Distinct[str] = Field(min_length=2, description="Names of the directions.")
    normalise: bool = Field(
        True,
        description="Divide the scores of each direction by their root mean square first, so that "
        "none outweighs the others by its scale alone.",
    )


class ExcessLoss(Settings):
    """The loss of a token under a model of harmless text, less that under the uncensored proxy."""

    reference: str = Field(
        description="The method whose model of the proxy's kind is the reference: one that learns "
        "from harmless text alone, by a filter or by texts of its own."
    )


class Saliency(Settings):
    """Gradient times input of a judge: how much a token raises the log-odds of toxicity."""

    classifier: str = Field(
        description="The judge, an entry of `classifiers` with weights: one trained here, given or "
        "published."
    )
    batch_size: int = Field(32, ge=1, description="Pieces of text in one batch.")


class TreatmentEffect(Settings):
    """How much less toxic a judge finds a text with another word in the place of a word, on
    average."""

    classifier: str = Field(description="The judge, an entry of `classifiers`.")
    occurrences: int = Field(
        10, ge=1, description="Occurrences of a word, at most, in which it is replaced."
    )
    replacements: int = Field(
        5, ge=1, description="Words that replace each, drawn by their frequency in the corpus."
    )
    fewest_occurrences: int = Field(
        5, ge=1, description="Words that the corpus holds less often have no effect."
    )
    context: int = Field(
        12, ge=0, description="Words on each side of an occurrence that the judge reads with it."
    )


class RivalPairs(Settings):
    """Pairs of a harmless and a toxic text."""

    files: Files
    format: Literal["paradetox", "preference"] = Field(
        "paradetox", description="Format of the files."
    )
    part: OrAbsent[Part] = None
    limit: OrAbsent[int] = Field(None, ge=1, description="At most so many pairs.")


class TokenClassifier(Settings):
    """A small bidirectional encoder, trained from scratch, that labels tokens."""

    exactly_one = (("texts",), ("pairs",))

    texts: OrAbsent[str] = Field(
        None,
        description="Entry of `texts`, whole texts that are toxic or not: a text is as toxic as "
        "one of its tokens at least.",
    )
    pairs: OrAbsent[RivalPairs] = Field(
        None,
        description="Pairs of texts: what the toxic side has and the other has not is toxic.",
    )
    max_length: int = Field(
        128,
        ge=8,
        description="Tokens of a text, or of a part of a document, that are read at once.",
    )
    hidden_size: int = Field(64, ge=8, description="Width.")
    layers: int = Field(2, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    epochs: float = Field(6, gt=0, description="Passes over the texts.")
    batch_size: int = Field(32, ge=1, description="Texts in one batch.")
    learning_rate: float = Field(0.001, gt=0, description="Peak learning rate.")


class Rival(Settings):
    """Scores of the tokens that are no influence, to compare influence with."""

    exactly_one = (("rho",), ("saliency",), ("ate",), ("token_classifier",))

    rho: OrAbsent[ExcessLoss] = Field(None, description="Excess loss, as of Rho-1, reversed.")
    saliency: OrAbsent[Saliency] = Field(None, description="A judge's own token saliency.")
    ate: OrAbsent[TreatmentEffect] = Field(
        None, description="Average treatment effect of a word on a judge."
    )
    token_classifier: OrAbsent[TokenClassifier] = Field(
        None, description="Labels of tokens by a trained encoder."
    )


class Variant(Settings):
    """A ranking of the tokens that is only judged."""

    direction: str = Field(
        description="Name of the query direction, average or rival whose scores rank."
    )
    attribution: Literal["loss", "position"] = Field("loss", description="Which token scores rank.")
    unmoved: Unmoved = False
    pooling: Pooling = 0.0
    pool_over: PoolOver = "token"
    token_weight: TokenWeight = "none"
    token_weight_power: TokenWeightPower = 1.0


class Scores(Settings):
    """How `loss` scores are computed."""

    route: Literal["two_forward", "forward_mode", "backward"] = Field(
        "two_forward",
        description="Two forward passes, exact forward-mode differentiation, or one exact "
        "backward pass a token.",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Number type of the products in these passes, where weights, sums and losses "
        "stay float32. `tf32` is for GPUs, float32 elsewhere; `bfloat16` goes with "
        "`forward_mode`, because a difference of two bfloat16 losses is noise.",
    )
    relative_step: float = Field(
        0.001,
        gt=0,
        description="Length of the finite step, relative to the norm of the tracked weights.",
    )
    tolerance: float = Field(
        0.01,
        gt=0,
        description="Largest relative error that is accepted of scores that are not exact (by two "
        "forward passes, or with products other than float32); a change scores again, "
        "because a smaller one has to be checked.",
    )
    check_blocks: int = Field(
        4,
        ge=0,
        description="Blocks of each shard on which that error is measured against exact scores.",
    )
    batch_size: int = Field(16, ge=1, le=64, description="Blocks in one batch.")
    logits_budget_mib: int = Field(64, ge=1, description="Memory that logits may take at once.")
    blocks: int | None = Field(
        None,
        ge=1,
        description="Score only so many blocks, sampled by seed, to compare variants; null scores "
        "all, which a selection needs.",
    )


class FalseDiscoveryLimit(Settings):
    """As many tokens as an estimated share of false ones among them allows."""

    false_discovery_rate: float = Field(
        gt=0,
        lt=1,
        description="Estimated share of the flagged tokens that have nothing to do with the "
        "queries. The lowest threshold that keeps to it flags, and `quantile` is not used.",
    )
    decoys: Literal["negative", "harmless"] = Field(
        "negative",
        description="What the false ones are estimated by: the scores as far below 0, as if what "
        "has nothing to do with the queries were symmetric; or the scores in the sources with "
        "`harmless: true`, which need no symmetry.",
    )


class EqualTokensLimit(Settings):
    """As many tokens as another selection takes."""

    tokens_of: str = Field(
        description="Name of the other entry of `influence.selections`. The highest threshold that "
        "enough tokens reach flags, and `quantile` is not used: two scores are compared at one "
        "price."
    )


def _kind_of_limit(limit: Any) -> str:
    if not isinstance(limit, Mapping):
        return "share"
    return "EqualTokensLimit" if "tokens_of" in limit else "FalseDiscoveryLimit"


class Selection(Settings):
    """A selection of tokens."""

    direction: str = Field(
        description="Name of the query direction, average or rival whose scores select."
    )
    attribution: Literal["loss", "position"] = Field(
        "loss", description="Which token scores select."
    )
    quantile: float = Field(
        0.99, ge=0, le=1, description="Quantile of all scores above which a token is flagged."
    )
    window: int = Field(
        1, ge=0, description="Neighbours, on each side, that are selected with a flagged token."
    )
    limit: Annotated[
        Annotated[Annotated[float, Field(ge=0, le=1)], Tag("share")]
        | Annotated[FalseDiscoveryLimit, Tag("FalseDiscoveryLimit")]
        | Annotated[EqualTokensLimit, Tag("EqualTokensLimit")],
        Discriminator(_kind_of_limit),
    ] = Field(
        0.02,
        description="Largest share of the corpus's tokens that is selected, the largest share of "
        "false discoveries among them, or another selection, as many of whose tokens are taken.",
    )
    documents: Literal["block", "source"] = Field(
        "block", description="What is ranked: training blocks, or source documents."
    )
    unmoved: Unmoved = False
    pooling: Pooling = 0.0
    pool_over: PoolOver = "token"
    token_weight: TokenWeight = "none"
    token_weight_power: TokenWeightPower = 1.0
    rank_by: Literal["flagged", "influence"] = Field(
        "flagged",
        description="What ranks documents: the flagged tokens' count and sum together, or the "
        "influence of the whole document, the sum of all its scores.",
    )


class Influence(Settings):
    """How tokens are scored and selected."""

    model: str = Field(description="Name of the proxy: the model whose gradients score the corpus.")
    allow_untrained: bool = Field(
        False,
        description="Accept a proxy whose weights were never trained; a change makes factors and "
        "gradients again, because a permission that is withdrawn has to be checked.",
    )
    query_tokens_per_batch: int = Field(
        8192, ge=1, description="Tokens of query records in one batch."
    )
    factors: Factors = section()
    directions: dict[DirectionName, Direction] = Field(
        min_length=1, description="Query directions by name."
    )
    averages: dict[DirectionName, Average] = section(
        "Mean scores of several directions (of other proxies, checkpoints or "
        "queries), by name; usable wherever a direction's scores are."
    )
    rivals: dict[DirectionName, Rival] = section(
        "Other scores of the tokens, by name, to compare influence with; usable wherever a "
        "direction's `loss` scores are."
    )
    variants: dict[Name, Variant] = section(
        "Rankings of the tokens that are only judged by the known toxic tokens, by "
        "name, where a source has `spans`; `report.study` lays them out."
    )
    scores: Scores = section()
    selections: dict[SelectionName, Selection] = Field(
        min_length=1, description="Selections of tokens by name."
    )
