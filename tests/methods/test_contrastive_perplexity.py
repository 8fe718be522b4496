"""Contrastive perplexity: its loss by definition, and which way it moves toxic texts."""

import math
from dataclasses import asdict

import pytest
import torch

from ifguide.data.preferences import PreferencePair
from ifguide.data.tokenizers import load_tokenizer
from ifguide.files.artifacts import write_jsonl
from ifguide.models.contrastive_perplexity import contrastive_loss, similarities
from ifguide.models.loading import load_model
from ifguide.models.pair_texts import pair_texts, stacked_pairs
from ifguide.models.token_texts import next_token_log_p, text_losses
from small_models import FAMILIES, small_model
from small_training import small_corpus
from tuned_models import (
    Interrupted,
    assert_same_weights,
    interrupt_at,
    start_directory,
    tune,
)

PAIRS = [
    PreferencePair("", f"abcd {'efgh ' * length}", f"abcd {'hgfe ' * length}dcba")
    for length in (1, 2, 3, 1, 2, 3, 1, 2)
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def pairs_file(tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [asdict(pair) for pair in PAIRS])
    return tmp_path / "pairs.jsonl"


def value(*, harmless, toxic, temperature=1.0, emphasis=100.0, one_sided=False):
    loss = contrastive_loss(
        torch.tensor(harmless, dtype=torch.float64),
        toxic if isinstance(toxic, torch.Tensor) else torch.tensor(toxic, dtype=torch.float64),
        temperature=temperature,
        emphasis=emphasis,
        one_sided=one_sided,
    )
    return loss if isinstance(toxic, torch.Tensor) else loss.item()


def by_definition(harmless, toxic, temperature, emphasis, one_sided):
    centre = sum(harmless) / len(harmless)
    near = [math.exp(-abs(phi - centre)) / temperature for phi in harmless]
    distance = (lambda phi: phi - centre) if one_sided else (lambda phi: abs(phi - centre))
    far = [math.exp(-distance(phi)) / temperature + emphasis for phi in toxic]
    everything = math.log(sum(math.exp(s) for s in [*near, *far]))
    return -sum(s - everything for s in near) / len(near)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_loss_is_the_definition(one_sided):
    case = ([2.0, 2.5, 1.1], [1.0, 4.0], 0.7, 3.0, one_sided)
    found = value(
        harmless=case[0], toxic=case[1], temperature=0.7, emphasis=3.0, one_sided=one_sided
    )
    assert found == pytest.approx(by_definition(*case), rel=1e-12)


def test_a_harmless_text_alone_is_its_own_centre():
    alone = torch.tensor([2.3], dtype=torch.float64)
    assert similarities(alone, alone.mean(), 1.0).item() == 1


@pytest.mark.parametrize(("one_sided", "sign"), [(False, 1), (True, -1)])
def test_which_way_a_toxic_text_is_moved_that_is_likelier_than_the_centre(one_sided, sign):
    """As published, a step down the gradient makes it likelier still; with one side less likely."""
    toxic = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    value(harmless=[2.4], toxic=toxic, one_sided=one_sided).backward()
    expected = math.exp(-0.4) if not one_sided else -math.exp(0.4)
    assert toxic.grad.item() == pytest.approx(expected, rel=1e-6)
    assert math.copysign(1, toxic.grad.item()) == sign


@pytest.mark.parametrize("one_sided", [False, True])
def test_a_toxic_text_beyond_the_centre_is_moved_away_either_way(one_sided):
    toxic = torch.tensor([3.0], dtype=torch.float64, requires_grad=True)
    value(harmless=[2.4], toxic=toxic, one_sided=one_sided).backward()
    assert toxic.grad.item() == pytest.approx(-math.exp(-0.6), rel=1e-6)


def test_a_great_emphasis_makes_the_loss_linear_in_the_scores():
    """log Σ is then α + log Σ over toxic texts alone: no harmless text is left in it."""
    harmless, toxic = [2.0, 2.6], [1.0, 4.0, 3.0]
    centre = 2.3
    near = [math.exp(-abs(phi - centre)) for phi in harmless]
    far = [math.exp(-abs(phi - centre)) for phi in toxic]
    linear = 100 + math.log(sum(map(math.exp, far))) - sum(near) / 2
    assert value(harmless=harmless, toxic=toxic) == pytest.approx(linear, abs=1e-12)
    other = value(harmless=harmless, toxic=toxic, emphasis=130.0)
    assert other - value(harmless=harmless, toxic=toxic) == pytest.approx(30, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_in_no_mean(corpus, family):
    """The loss of a set is that of its texts, read one by one."""
    model = small_model(family, vocabulary=corpus.meta["vocabulary_size"])
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    pairs = pair_texts(tokenizer, PAIRS, 32)

    def losses(texts):
        batch = stacked_pairs(texts)
        with torch.no_grad():
            return text_losses(next_token_log_p(model, batch["input_ids"]), batch["labels"])

    together = losses(pairs)
    alone = torch.stack([losses([pair]) for pair in pairs])
    assert len({len(pair.toxic.ids) for pair in pairs}) > 1
    assert torch.allclose(together, torch.cat([alone[:, 0], alone[:, 1]]), rtol=1e-9)


def test_toxic_sides_become_less_likely_than_harmless_ones(corpus, pairs_file, tmp_path):
    start = start_directory(tmp_path / "start", corpus)
    options = {"pairs": "x", "epochs": 8, "batch_size": 4, "learning_rate": 0.01,
               "one_sided": True}  # fmt: skip
    made = tune(
        "contrastive_perplexity",
        options,
        {"pairs": [pairs_file]},
        corpus=corpus,
        start=start,
        output=tmp_path / "0",
    )
    tokenizer = load_tokenizer(corpus.directory / "tokenizer")
    batch = stacked_pairs(pair_texts(tokenizer, PAIRS, 32))

    def gap(model):
        with torch.no_grad():
            losses = text_losses(next_token_log_p(model, batch["input_ids"]), batch["labels"])
        harmless, toxic = losses.chunk(2)
        return (toxic - harmless).mean().item()

    assert gap(made.model) > gap(load_model(start)) + 0.5
    assert made.record["examples"] == len(PAIRS)


def test_an_interrupted_training_ends_with_the_same_bits(corpus, pairs_file, tmp_path, monkeypatch):
    start = start_directory(tmp_path / "start", corpus)
    options = {"pairs": "x", "epochs": 4, "batch_size": 4, "learning_rate": 0.01}
    common = {"corpus": corpus, "start": start}
    given = {"pairs": [pairs_file]}
    key = "contrastive_perplexity"
    whole = tune(key, options, given, output=tmp_path / "whole", **common)
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune(key, options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune(key, options, given, output=tmp_path / "parts", **common)
    assert len(resumed.losses) == len(whole.losses) == 8
    assert_same_weights(resumed.model, whole.model)
