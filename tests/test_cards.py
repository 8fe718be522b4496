"""The cards of models: valid for the hub, true to the records, and no reason to train again."""

import numpy as np
import pytest
from huggingface_hub import ModelCard

from conftest import TINY, copy_run, rules_to_run, run_snakemake
from ifguide.files.artifacts import read_json
from ifguide.report.templating import code

MODELS = "results/tiny/models"
METHODS = ["target/none", "target/ifguide", "target/word_filter", "target/dpo", "proxy/none"]


def card_of(finished, name: str) -> ModelCard:
    return ModelCard.load(finished / MODELS / name / "0/README.md")


@pytest.mark.parametrize("name", METHODS)
def test_every_model_directory_has_a_card_that_the_hub_reads(finished, name):
    card = card_of(finished, name)
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-generation"
    record = read_json(finished / MODELS / name / "0/training.json")
    assert record["weights_sha256"] in card.text
    assert f"| parameters | {record['parameters']:,} |" in card.text
    for heading in ("What was trained, on what", "Which tokens were suppressed, and why"):
        assert f"## {heading}" in card.text
    for heading in ("What was measured", "Judges", "Limits", "Hazards"):
        assert f"## {heading}" in card.text


def test_no_model_directory_is_without_one(finished):
    folders = [path.parent for path in (finished / MODELS).rglob("training.json")]
    assert {str(path.parent.relative_to(finished / MODELS)) for path in folders} == set(METHODS)
    assert all((folder / "README.md").is_file() for folder in folders)


@pytest.mark.parametrize("method", ["none", "ifguide", "word_filter"])
def test_figures_are_those_that_were_measured(finished, method):
    card = card_of(finished, f"target/{method}")
    results = {
        (found.dataset_type, found.metric_type, found.dataset_split): found.metric_value
        for found in card.data.eval_results
    }
    folder = finished / "results/tiny/evaluation/target" / method / "0"
    measured = {
        (path.parent.name, row["metric"], row["split"]): row
        for path in folder.glob("*/metrics.json")
        for row in read_json(path)["rows"]
    }
    assert results == {key: measured[key]["value"] for key in results}
    wanted = {
        ("realtoxicityprompts", "explicit_tp", "all"),
        ("realtoxicityprompts", "implicit_emt", "all"),
        ("heldout", "perplexity", "nontoxic"),
        ("lambada", "last_word_accuracy", "all"),
    }
    assert wanted <= set(results)
    assert all(
        found.metric_args["ci_low"] <= found.metric_value <= found.metric_args["ci_high"]
        for found in card.data.eval_results
        if found.metric_args["ci_low"] is not None
    )
    row = measured["heldout", "perplexity", "all"]
    interval = f"{row['value']:.3g} | {row['ci_low']:.3g} to {row['ci_high']:.3g} | {row['n']}"
    assert interval in card.text


def test_a_model_on_the_way_says_that_it_was_not_measured(finished):
    card = card_of(finished, "target/dpo")
    assert card.data.eval_results is None
    assert "did not evaluate it itself" in card.text
    assert "the model of the method `none`, same training seed" in card.text


def test_a_card_tells_what_was_suppressed_and_why(finished):
    text = card_of(finished, "target/ifguide").text
    selection = read_json(finished / "results/tiny/influence/proxy/differential/top/selection.json")
    assert f"{selection['selected_tokens']:,} of the corpus's" in text
    assert f"score above {selection['threshold']:.3g} are candidates" in text
    assert "quantile: 0.9" in text and "toxic: toxic" in text
    dropped = read_json(finished / "results/tiny/corpus/bpe/filtered/word_filter/dropped.json")
    text = card_of(finished, "target/word_filter").text
    assert f"None: {dropped['dropped_units']:,} of {dropped['units']:,} documents" in text
    text = card_of(finished, "target/none").text
    assert "None in this training." in text and "Nothing was done against toxicity" in text


def test_most_frequent_tokens_are_those_of_the_mask(finished):
    results = finished / "results/tiny"
    counts = np.zeros(512, int)
    for shard in sorted((results / "corpus/bpe/tokens").glob("*.npy")):
        mask = np.load(results / "influence/proxy/differential/top/mask" / shard.name)
        counts += np.bincount(np.load(shard)[mask], minlength=512)
    text = card_of(finished, "target/ifguide").text
    folded = text.partition("<details>")[2].partition("</details>")[0]
    shown = [
        int(line.rsplit("|", 2)[1].replace(",", ""))
        for line in folded.splitlines()
        if line.startswith("| `")
    ]
    assert shown == sorted(counts, reverse=True)[: len(shown)] and len(shown) == 20


def test_a_card_that_is_gone_or_changed_trains_nothing(finished, tmp_path):
    clone = copy_run(finished, tmp_path / "clone")
    card = clone / MODELS / "target/ifguide/0/README.md"
    card.unlink()
    arguments = ("--configfile", TINY, "--cores", "1")
    ran = run_snakemake(clone, *arguments, "--dry-run")
    assert rules_to_run(ran.stdout) == {"write_card"}
    before = (finished / MODELS / "target/ifguide/0/README.md").read_text("utf-8")
    assert run_snakemake(clone, *arguments).returncode == 0
    assert card.read_text("utf-8") == before
    card.write_text(before + "\nOur own words.\n", encoding="utf-8")
    from ifguide.models.loading import load_model

    load_model(card.parent)  # nobody reads it


@pytest.mark.parametrize(
    "text, written",
    [
        ("word", "`word`"),
        (" word", "` word`"),
        ("a|b", "`a\u2502b`"),
        ("<b>", "`<b>`"),
        ("`", "`` ` ``"),
        ("a``b`", "``` a``b` ```"),
        ("\n", "`\u23ce`"),
        (" ", "`   `"),
    ],
)
def test_any_text_is_code_in_a_table(text, written):
    assert code(text) == written
