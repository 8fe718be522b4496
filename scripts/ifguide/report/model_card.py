"""The card of a model, README.md beside its weights, with metadata that the hub understands."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ifguide.report.templating import render

# What is shown of a benchmark: toxicity by judge, and these figures of fluency.
TOXICITY = re.compile(r".+_(?:tp|emt)")
FLUENCY = (
    *("perplexity", "next_token_kl", "continuation_perplexity"),
    *("last_word_accuracy", "last_token_accuracy"),
)
SPLITS = ("all", "nontoxic")
MEANING = {
    "tp": "share of prompts with at least one continuation of which the judge says ≥ 0.5",
    "emt": "mean over prompts of the highest score of a continuation",
}


@dataclass(frozen=True)
class Suppressed:
    """The tokens that a training suppressed: how many, of how many kinds, the most frequent."""

    tokens: int
    share: float
    kinds: int
    most_frequent: list[tuple[str, int]]


@dataclass(frozen=True)
class Measured:
    """One figure of a benchmark, with its interval where it has one, and the uncensored model's."""

    benchmark: str
    metric: str
    split: str
    value: float
    low: float | None
    high: float | None
    n: int
    uncensored: float | None

    @property
    def is_toxicity(self) -> bool:
        return TOXICITY.fullmatch(self.metric) is not None


def measured(metrics: Sequence[dict], reference: Sequence[dict]) -> Iterator[Measured]:
    """Yield the figures that a card shows, of the metrics of each benchmark and of `none`'s."""
    uncensored = {
        (document["benchmark"], row["metric"], row["split"]): row["value"]
        for document in reference
        for row in document["rows"]
    }
    for document in metrics:
        for row in document["rows"]:
            toxicity = TOXICITY.fullmatch(row["metric"]) and row["split"] == "all"
            fluency = row["metric"] in FLUENCY and row["split"] in SPLITS
            if row["value"] is not None and (toxicity or fluency):
                key = (document["benchmark"], row["metric"], row["split"])
                yield Measured(
                    *key,
                    value=row["value"],
                    low=row["ci_low"],
                    high=row["ci_high"],
                    n=row["n"],
                    uncensored=uncensored.get(key),
                )


def model_card(
    settings: Mapping[str, Any],
    training: Mapping[str, Any],
    corpus: Mapping[str, Any],
    *,
    suppressed: Suppressed | None,
    dropped: Mapping[str, Any] | None,
    selected: Mapping[str, Any] | None,
    metrics: Sequence[dict],
    reference: Sequence[dict],
) -> str:
    """Return the card as Markdown.

    settings: as of `scripts/write_card.py`. training: what `training.json` holds; corpus: what
    `meta.json` holds; dropped, selected: `dropped.json` and `selection.json`, where there are any.
    metrics, reference: what `metrics.json` holds, of the model and of the uncensored one.
    """
    figures = list(measured(metrics, reference))
    return render(
        "model_card.md",
        metadata=_metadata(settings, figures).to_yaml(),
        title=_title(settings),
        settings=settings,
        training=training,
        corpus=corpus,
        suppressed=suppressed,
        dropped=dropped,
        selected=selected,
        figures=figures,
        meaning=MEANING,
        warnings=[
            f"{document['benchmark']}: {text}"
            for document in metrics
            for text in document.get("warnings", [])
        ],
    )


def _title(settings: Mapping[str, Any]) -> str:
    return "{experiment}: {model} by {method}, seed {seed}".format_map(settings)


def _metadata(settings: Mapping[str, Any], figures: Sequence[Measured]) -> ModelCardData:
    """Return what the hub reads: tags, data sets of the hub, and every figure shown."""
    return ModelCardData(
        model_name=_title(settings),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["ifguide", "detoxification", settings["method"]],
        datasets=sorted({source["hub"] for source in settings["sources"] if source.get("hub")})
        or None,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                task_name="Text Generation",
                dataset_type=figure.benchmark,
                dataset_name=figure.benchmark,
                dataset_split=figure.split,
                metric_type=figure.metric,
                metric_name=f"{figure.metric}, {figure.split}",
                metric_value=figure.value,
                metric_args={"ci_low": figure.low, "ci_high": figure.high, "n": figure.n},
            )
            for figure in figures
        ]
        or None,
    )
