"""What lasts of methods: curves against closed forms, relearning against definitions, the table."""

import copy
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import TINY, copy_run, read_tiny, rules_to_run, run_snakemake
from ifguide.errors import InputError
from ifguide.evaluation.lasting import (
    Bounded,
    compute_slowdown,
    middle,
    reached_at,
    steps_to_level,
)
from ifguide.evaluation.relearning import endless_batches, relearn, toxic_text_loss
from ifguide.files.artifacts import read_json, read_jsonl
from ifguide.models.token_texts import TokenText
from ifguide.models.work import Work
from ifguide.planning.evaluation_rules import measure_relearning
from ifguide.planning.experiment import Experiment
from ifguide.report.lasting_table import lasting_page, lasting_table
from ifguide.workflow.config.check import with_defaults
from ifguide.workflow.config.experiment import Config
from ifguide.workflow.layout import Layout
from ifguide.workflow.parts import open_experiment
from small_models import FAMILIES, random_tokens, small_model

LAYOUT = Layout("tiny")
STEPS = [0, 1, 2, 4, 8, 16]


# --- curves ---


@pytest.mark.parametrize("steps", [0.25, 1, 3, 11.5, 16])
def test_steps_to_a_level_are_exact_where_a_curve_falls_with_log_steps(steps):
    falling = [5 - 1.5 * math.log1p(s) for s in STEPS]
    found = steps_to_level(STEPS, falling, 5 - 1.5 * math.log1p(steps))
    assert found.bound == "" and found.value == pytest.approx(steps)
    # What the values are measured in changes nothing, and a rising measure is a falling one turned.
    again = steps_to_level(STEPS, [100 * v for v in falling], 100 * (5 - 1.5 * math.log1p(steps)))
    assert again.value == pytest.approx(found.value)


def test_steps_beyond_the_ends_of_a_curve():
    values = [3.0, 2.5, 2.0, 1.5, 1.0, 0.5]
    assert steps_to_level(STEPS, values, 3.0) == Bounded(0.0)
    assert steps_to_level(STEPS, values, 4.0) == Bounded(0.0)
    assert steps_to_level(STEPS, values, 0.49) == Bounded(16.0, ">")
    assert steps_to_level(STEPS, values, 0.5) == (pytest.approx(16.0), "")


def test_a_level_is_reached_where_a_curve_first_comes_down_to_it():
    assert reached_at([0, 1, 2, 3], [4, 1, 3, 0], 2) == pytest.approx(2 / 3)
    assert reached_at([0, 1], [2, 2], 2) == -math.inf
    assert reached_at([0, 1], [3, 3], 2) == math.inf


def test_a_lower_level_takes_no_fewer_steps():
    generator = np.random.default_rng(0)
    for _ in range(50):
        values = generator.normal(size=len(STEPS))
        levels = np.sort(generator.normal(size=20))[::-1]
        found = [steps_to_level(STEPS, values, level) for level in levels]
        ranks = [(number.value, number.bound == ">") for number in found]
        assert ranks == sorted(ranks)


COMPUTE = [1e9, 4e9, 1e10, 8e10]
LOSSES = [12 - 0.4 * math.log(c) for c in COMPUTE]


@pytest.mark.parametrize("compute", [1.5e9, 4e9, 7e10, 8e10])
def test_the_slowdown_is_exact_where_loss_falls_with_log_compute(compute):
    loss = 12 - 0.4 * math.log(compute)
    found = compute_slowdown(COMPUTE, LOSSES, loss, total=8e10)
    assert found == (pytest.approx(8e10 / compute), "")
    # Neither the order of the models nor the unit of compute matters.
    turned = compute_slowdown([c / 7 for c in COMPUTE[::-1]], LOSSES[::-1], loss, total=8e10 / 7)
    assert turned.value == pytest.approx(found.value)


def test_a_slowdown_beyond_the_ends_of_the_curve_is_bounded():
    assert compute_slowdown(COMPUTE, LOSSES, LOSSES[0] + 1, 8e10) == (pytest.approx(80), "≥")
    assert compute_slowdown(COMPUTE, LOSSES, LOSSES[-1] - 1, 8e10) == (pytest.approx(1), "≤")
    # Models with more compute than the one compared tell of slowdowns below 1.
    assert compute_slowdown(COMPUTE, LOSSES, LOSSES[-1], 1e10).value == pytest.approx(1 / 8)


def test_a_higher_loss_is_no_smaller_slowdown():
    generator = np.random.default_rng(1)
    for _ in range(50):
        losses = generator.normal(size=len(COMPUTE))
        found = [
            compute_slowdown(COMPUTE, losses, loss, COMPUTE[-1])
            for loss in np.sort(generator.normal(size=20))
        ]
        values = [number.value for number in found]
        assert values == sorted(values)


def test_the_median_is_a_number_that_was_measured():
    beyond = Bounded(16.0, ">")
    assert middle([beyond, Bounded(2.0), Bounded(16.0)]) == Bounded(16.0)
    assert middle([beyond, Bounded(2.0), beyond]) == beyond
    assert middle([beyond, Bounded(2.0)]) == Bounded(2.0)


# --- relearning ---


def texts(count: int = 6) -> list[TokenText]:
    """Texts of unequal lengths."""
    rows = random_tokens(count).tolist()
    return [TokenText(row[: 4 + number]) for number, row in enumerate(rows)]


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def relearned(model, steps, seed=0, batch_size=3, learning_rate=1e-3):
    """The model after each of some steps, its own beginning first."""
    passes = relearn(
        model,
        texts(),
        learning_rate=learning_rate,
        batch_size=batch_size,
        measured_steps=steps,
        seed=seed,
    )
    return {done: weights(model) for done in passes}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_adamw_on_the_mean_loss_of_the_labels(family):
    model, same = small_model(family), small_model(family)
    after = relearned(model, [1], batch_size=6)
    # All texts are one batch; here each is read alone, without padding.
    losses = [
        torch.nn.functional.cross_entropy(
            same(torch.tensor([text.ids])).logits[0, :-1],
            torch.tensor(text.ids[1:]),
            reduction="none",
        )
        for text in texts()
    ]
    torch.cat(losses).mean().backward()
    for name, parameter in same.named_parameters():
        # The first step of AdamW without decay goes by the sign of the gradient.
        step = 1e-3 * parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(after[1][name], parameter.detach() - step, rtol=0, atol=1e-9)
        assert torch.equal(after[0][name], parameter)


def test_where_a_model_is_measured_changes_nothing():
    often = relearned(small_model("gpt_neox"), [1, 2, 5])
    once = relearned(small_model("gpt_neox"), [5])
    other = relearned(small_model("gpt_neox"), [5], seed=1)
    assert list(often) == [0, 1, 2, 5] and list(once) == [0, 5]
    assert all(torch.equal(often[5][name], once[5][name]) for name in often[5])
    assert any(not torch.equal(often[5][name], other[5][name]) for name in other[5])


def test_every_text_comes_before_any_comes_again():
    batches = endless_batches(7, 2, seed=3)
    for _ in range(4):
        seen = np.concatenate([next(batches) for _ in range(3)])
        assert len(set(seen)) == 6 and set(seen) <= set(range(7))


class OneShard:
    """Rows of an array, as a corpus on disk gives them."""

    def __init__(self, array) -> None:
        self.array = np.asarray(array)

    def __len__(self) -> int:
        return len(self.array)

    def rows(self, rows) -> np.ndarray:
        return self.array[list(rows)]


class OnlyTokens:
    """What of a corpus the loss of toxic tokens depends on."""

    def __init__(self, tokens, truth) -> None:
        self.tokens, self.truth = OneShard(tokens), OneShard(truth)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_loss_of_toxic_text_is_that_of_its_label_tokens(batch_size):
    model, tokens = small_model("gpt_neox"), random_tokens(5)
    truth = np.zeros(tokens.shape, bool)
    truth[1, 3:6] = truth[4, 0:2] = truth[4, 11] = True  # the first token of a block is no label
    found = toxic_text_loss(model, OnlyTokens(tokens, truth), batch_size=batch_size)
    with torch.no_grad():
        log_p = model(tokens).logits.log_softmax(-1)
    places = [(1, 3), (1, 4), (1, 5), (4, 1), (4, 11)]
    expected = [-float(log_p[row, column - 1, tokens[row, column]]) for row, column in places]
    assert found == pytest.approx(np.mean(expected), rel=1e-9)


def test_without_known_toxic_text_there_is_no_loss_of_it():
    tokens = random_tokens(2)
    truth = np.zeros(tokens.shape, bool)
    truth[:, 0] = True
    with pytest.raises(InputError, match="no token of the held-out documents is known to be toxic"):
        toxic_text_loss(small_model("gpt2"), OnlyTokens(tokens, truth))


# --- the table ---


def measured(method: str, seed: int, losses: list[float], fractions: list[float]) -> dict:
    points = [
        {"steps": steps, "toxic_loss": loss, "toxic_fraction": fraction}
        for steps, loss, fraction in zip([0, 1, 3], losses, fractions, strict=True)
    ]
    return {"model": "target", "method": method, "seed": seed, "points": points}


RELEARNING = [
    measured("none", 0, [1.0, 0.9, 0.8], [0.5, 0.6, 0.7]),
    measured("ifguide", 0, [3.0, 2.0, 1.0], [0.0, 0.25, 0.5]),
    measured("none", 1, [1.0, 0.9, 0.8], [0.5, 0.6, 0.7]),
    measured("ifguide", 1, [4.0, 3.0, 2.0], [0.0, 0.5, 0.5]),
]
CURVES = [
    {
        "model": "target",
        "seed": seed,
        "points": [
            {"model": "early", "flops": 2.0, "toxic_loss": 3.0},
            {"model": "target", "flops": 8.0, "toxic_loss": 1.0},
        ],
    }
    for seed in (0, 1)
]


def test_the_table_holds_each_seed_against_the_uncensored_model_of_its_own():
    table = lasting_table(RELEARNING, CURVES, ["rad"]).set_index(["method", "seed"])
    first, second = table.loc[("ifguide", 0)], table.loc[("ifguide", 1)]
    assert (first["steps_to_loss"], first["steps_to_loss_bound"]) == (pytest.approx(3), "")
    assert (second["steps_to_loss"], second["steps_to_loss_bound"]) == (3, ">")
    assert first["steps_to_fraction"] == pytest.approx(3)
    assert second["steps_to_fraction"] == pytest.approx(1)
    assert (first["slowdown"], first["slowdown_bound"]) == (pytest.approx(4), "≥")
    assert table.loc[("none", 0), "slowdown"] == pytest.approx(1)
    assert table.loc[("none", 0), "steps_to_loss"] == 0
    (decoded,) = table[table["unmeasured"].notna()].reset_index()["method"]
    assert decoded == "rad"


def test_the_page_shows_the_median_and_the_range_over_seeds():
    page = lasting_page(lasting_table(RELEARNING, CURVES, ["rad"]))
    row = page[page.index('<th scope="row">ifguide</th>') :].split("</tr>")[0]
    assert "(3.0 to &gt; 3)" in row  # steps until the loss is back
    assert ">1.0<" in row and "(1.0 to 3.0)" in row  # until the fraction is
    assert "≥ 4.0" in row
    assert "Not measured: rad." in page
    alone = lasting_page(lasting_table(RELEARNING[:2], [], []))
    assert "compute slowdown on toxic text</th>" not in alone and "small>(" not in alone


def test_a_model_without_its_uncensored_one_is_refused():
    with pytest.raises(InputError, match="uncensored model of this seed was not measured"):
        lasting_table(RELEARNING[1:2], [], [])


# --- in the workflow ---

SECTION = {
    "lasting": {
        **{"texts": "labelled", "learning_rate": 1.0e-2, "steps": [4, 1, 16]},
        **{"prompts": 4, "continuations": 2, "curve": ["proxy"]},
    },
}


@pytest.fixture(scope="module")
def lasting(finished, tmp_path_factory) -> Path:
    """A finished tiny run of which it has been measured what lasts."""
    clone = copy_run(finished, tmp_path_factory.mktemp("lasting") / "clone")
    (clone / "lasting.yaml").write_text(yaml.safe_dump(SECTION), encoding="utf-8")
    wanted = LAYOUT.shown("lasting.csv")
    ran = run_snakemake(clone, wanted, "--configfile", TINY, "lasting.yaml", "--cores", "2")
    assert ran.returncode == 0, ran.stdout
    return clone


def test_what_lasts_is_measured_of_every_model_and_of_no_decoding(lasting):
    table = pd.read_csv(lasting / LAYOUT.shown("lasting.csv")).set_index("method")
    assert set(table.index) == {"none", "word_filter", "ifguide", "rad"}
    rad = table.loc["rad"]
    assert "leaves the decoding away" in rad["unmeasured"] and math.isnan(rad["toxic_loss"])
    models = table.drop("rad")
    assert (models["steps"] == 16).all() and models["unmeasured"].isna().all()
    assert models["toxic_fraction"].between(0, 1).all()
    assert table.loc["none", "steps_to_loss"] == 0
    page = (lasting / LAYOUT.shown("pages/lasting.html")).read_text("utf-8")
    assert "Not measured: rad." in page


def test_relearning_lowers_the_loss_of_toxic_text_that_no_model_has_seen(lasting):
    for method in ("none", "word_filter", "ifguide"):
        found = read_json(lasting / LAYOUT.relearning("target", method, 0))
        folder = lasting / LAYOUT.model("target", method, 0)
        assert found["weights_sha256"] == read_json(folder / "training.json")["weights_sha256"]
        assert [point["steps"] for point in found["points"]] == [0, 1, 4, 16]
        losses = [point["toxic_loss"] for point in found["points"]]
        assert losses[-1] < losses[0] - 0.1
    labelled = read_jsonl(lasting / LAYOUT.texts("labelled"))
    assert found["texts"] == sum(record["label"] >= 0.5 for record in labelled)
    assert (found["prompts"], found["continuations"]) == (4, 2)


def test_the_curve_has_the_compute_of_each_training(lasting):
    curve = read_json(lasting / LAYOUT.loss_curve("target", 0))
    points = {point["model"]: point for point in curve["points"]}
    assert set(points) == {"proxy", "target"}
    for model, point in points.items():
        record = read_json(lasting / LAYOUT.model(model, "none", 0) / "training.json")
        blocks = read_json(lasting / LAYOUT.corpus("bpe") / "meta.json")["blocks"]
        # Two epochs in steps of eight blocks, the last of each epoch smaller.
        assert record["steps"] == 2 * math.ceil(blocks / 8)
        assert point["flops"] == record["steps"] * 8 * 128 * record["flops_per_token"]
    own = read_json(lasting / LAYOUT.relearning("target", "none", 0))["points"][0]
    assert points["target"]["toxic_loss"] == own["toxic_loss"]


def test_a_change_of_the_steps_measures_no_curve_again(lasting):
    section = copy.deepcopy(SECTION)
    section["lasting"]["steps"] = [1]
    (lasting / "changed.yaml").write_text(yaml.safe_dump(section), encoding="utf-8")
    arguments = ["--configfile", TINY, "changed.yaml", "--cores", "1", "--dry-run"]
    printed = run_snakemake(lasting, LAYOUT.shown("lasting.csv"), *arguments).stdout
    assert rules_to_run(printed) == {"measure_relearning", "tabulate_lasting"}


def test_a_plan_counts_the_steps_and_every_measurement():
    config = read_tiny() | {"lasting": dict(SECTION["lasting"])}

    def work(**changes) -> Work:
        changed = copy.deepcopy(config)
        changed["lasting"] |= changes
        facts = open_experiment(with_defaults(Config, changed)).planned_facts()
        planned = Experiment(with_defaults(Config, changed), facts)
        return measure_relearning(planned, model="target", method="none", seed="0")

    few, often, many = (work(steps=steps).flops for steps in ([16], [1, 16], [32]))
    sixteen_steps = many - few
    # Beside the steps it is measured at the beginning and after each number of them.
    assert 0 < sixteen_steps < few
    assert often - few == pytest.approx((few - sixteen_steps) / 2)
