"""IRepair: which blocks a step changes, what it changes them by, and what it leaves alone."""

import copy
from dataclasses import asdict
from functools import partial

import pytest
import torch
from torch import nn

from ifguide.data.preferences import PreferencePair
from ifguide.errors import InputError
from ifguide.files.artifacts import write_jsonl
from ifguide.methods.irepair import Irepair
from ifguide.methods.step import LabelledTexts, Pairs
from ifguide.models.block_repair import (
    RepairTexts,
    RepairTrainer,
    halves,
    learning_loss,
    most_sensitive,
    sensitivities,
    stacked_repair,
    times_chosen,
)
from ifguide.models.causal_text_training import mean_label_loss, train_by
from ifguide.models.loading import load_model
from ifguide.models.token_texts import TokenText
from ifguide.models.tracked_layers import transformer_blocks
from small_models import FAMILIES, random_tokens, small_model
from small_training import TRAINING, small_corpus
from tuned_models import (
    Interrupted,
    assert_same_weights,
    changed_parameters,
    interrupt_at,
    start_directory,
    tune,
)

EXAMPLES = [
    RepairTexts(
        TokenText(random_tokens(1, length, seed=length)[0].tolist()),
        TokenText(random_tokens(1, length + 2, seed=50 + length)[0].tolist()),
    )
    for length in (9, 4, 7, 5, 8, 6)
]
# One batch a step, plain enough to be done by hand.
BY_HAND = {**TRAINING, "max_steps": 1, "batch_size": 6, "accumulation": 1, "schedule": "constant",
           "warmup": 0.0, "clip": 1e9}  # fmt: skip


def repaired(model, folder, *, weight=1.0, share=None, measure="norm", **changes):
    start = copy.deepcopy(model).requires_grad_(False) if weight else None
    losses, steps = train_by(
        learning_loss,
        model,
        EXAMPLES,
        stacked_repair,
        settings={**BY_HAND, **changes},
        checkpoints=folder,
        seed=1,
        trainer=partial(RepairTrainer, start=start, weight=weight, share=share, measure=measure),
    )
    return losses, steps


def names_by_block(model) -> list[set[str]]:
    prefix, blocks = transformer_blocks(model)
    return [
        {f"{prefix}.{number}.{name}" for name, _ in block.named_parameters()}
        for number, block in enumerate(blocks)
    ]


def loss_gradients(model) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss of the texts to learn, read one by one."""
    total, count = 0.0, 0
    for example in EXAMPLES:
        ids = torch.tensor([example.learned.ids])
        log_p = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total = total - log_p[range(len(log_p)), ids[0, 1:]].sum()
        count += len(log_p)
    named = dict(model.named_parameters())
    gradients = torch.autograd.grad(total / count, list(named.values()))
    return dict(zip(named, gradients, strict=True))


# --- which blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("favoured", [0, 1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_changes_the_block_that_the_texts_move_most(family, favoured, tmp_path):
    """The gains of its norms make one block matter much, and the other one little."""
    model = small_model(family, torch.float32)
    for block, gain in ((favoured, 4.0), (1 - favoured, 0.02)):
        for name, parameter in transformer_blocks(model)[1][block].named_parameters():
            if parameter.dim() == 1 and "bias" not in name:
                parameter.data.mul_(gain)
    before = copy.deepcopy(model)
    gradients, blocks = loss_gradients(before), names_by_block(before)
    norms = [sum(gradients[name].square().sum() for name in names) ** 0.5 for names in blocks]
    assert norms[favoured] > norms[1 - favoured]
    repaired(model, tmp_path)
    changed = changed_parameters(model, before)
    assert changed == {name for name in blocks[favoured] if gradients[name].abs().max() > 0}
    assert changed


def test_known_gradients_of_two_blocks_choose_by_size_or_by_mean_square():
    blocks = [nn.Linear(3, 3, bias=False), nn.Linear(1, 2)]
    blocks[0].weight.grad = torch.full((3, 3), 2.0)
    blocks[1].weight.grad = torch.tensor([[3.0], [0.0]])
    blocks[1].bias.grad = torch.tensor([4.0, 0.0])
    assert sensitivities(blocks, "norm").tolist() == [6.0, 5.0]
    assert sensitivities(blocks, "rms").tolist() == [2.0, 2.5]
    assert most_sensitive(sensitivities(blocks, "norm"), None) == [0]
    assert most_sensitive(sensitivities(blocks, "rms"), None) == [1]


def test_a_share_of_blocks_is_rounded_up_and_ties_go_to_earlier_ones():
    sizes = torch.tensor([1.0, 3.0, 2.0, 3.0, 0.5])
    assert most_sensitive(sizes, None) == [1]
    assert most_sensitive(sizes, 0.2) == [1]
    assert most_sensitive(sizes, 0.21) == [1, 3]
    assert most_sensitive(sizes, 0.6) == [1, 2, 3]
    assert most_sensitive(sizes, 1.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("share", [None, 1.0])
def test_the_log_counts_the_blocks_of_every_step(share, tmp_path):
    model = small_model("llama", torch.float32)
    losses, steps = repaired(
        model, tmp_path, share=share, max_steps=None, epochs=4, batch_size=2, log_steps=5
    )
    assert steps == 12
    chosen = times_chosen(losses)
    assert len(chosen) == 2
    assert sum(chosen) == (12 if share is None else 24)
    assert times_chosen([]) == []


# --- by what they change --------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 3.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_blocks_at_once_take_the_steps_of_plain_training(family, weight, tmp_path):
    """AdamW on all blocks, by the loss and the divergence from their definitions."""
    model = small_model(family, torch.float64)
    start, expected = copy.deepcopy(model), copy.deepcopy(model)
    repaired(model, tmp_path, weight=weight, share=1.0, max_steps=3)
    parameters = dict(expected.named_parameters())
    blocks = [parameters[name] for names in names_by_block(expected) for name in sorted(names)]
    decayed, plain = (
        [own for own in blocks if (own.dim() > 1) is matrix] for matrix in (True, False)
    )
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": plain, "weight_decay": 0.0}],
        lr=BY_HAND["learning_rate"],
        betas=BY_HAND["betas"],
        eps=BY_HAND["epsilon"],
        weight_decay=BY_HAND["weight_decay"],
    )
    learned, kept = halves(stacked_repair(EXAMPLES))
    for _ in range(3):
        optimizer.zero_grad()
        loss = mean_label_loss(expected, learned) + weight * divergence(start, expected, kept)
        loss.backward()
        optimizer.step()
    for name, found in model.named_parameters():
        torch.testing.assert_close(found, parameters[name], rtol=1e-6, atol=1e-9)
    assert changed_parameters(model, start) >= set().union(*names_by_block(start)) - {
        name for name, parameter in parameters.items() if parameter.grad is None
    }


def divergence(start, model, kept) -> torch.Tensor:
    """KL(p₀ || p) of the next token, text by text, a mean over all tokens but the first."""
    found = []
    for ids, labels in zip(kept["input_ids"], kept["labels"], strict=True):
        text = ids[None, : 1 + int((labels[1:] != -100).sum())]
        p0, p = (own(input_ids=text).logits[0, :-1].log_softmax(-1) for own in (start, model))
        found.append(nn.functional.kl_div(p, p0, reduction="none", log_target=True).sum(-1))
    return torch.cat(found).mean()


def test_it_is_held_to_the_model_that_it_began_as(tmp_path):
    """The first step does not feel it; the more it weighs, the less later ones diverge."""
    losses = [
        repaired(small_model("gpt_neox", torch.float32), tmp_path / str(weight), weight=weight,
                 share=1.0, max_steps=30, learning_rate=0.01)[0]
        for weight in (0.01, 1.0, 100.0)
    ]  # fmt: skip
    assert [log[0]["divergence"] for log in losses] == pytest.approx([0, 0, 0], abs=1e-7)
    last = [log[-1]["divergence"] for log in losses]
    assert last[0] > last[1] > last[2] > 0


# --- as a step ------------------------------------------------------------------------------------


PAIRS = [PreferencePair("", f"abcd {'efgh ' * n}", f"dcba {'hgfe ' * n}") for n in (1, 2, 3, 4)]
LABELLED = [{"text": f"gfed {'cbah ' * n}", "label": float(n % 2)} for n in range(1, 7)]
FAST = {"epochs": 6, "batch_size": 2, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def files(tmp_path):
    pairs, texts = tmp_path / "pairs.jsonl", tmp_path / "texts.jsonl"
    write_jsonl(pairs, [asdict(pair) for pair in PAIRS])
    write_jsonl(texts, LABELLED)
    return {"pairs": [pairs], "texts": [texts]}


@pytest.fixture
def start(corpus, tmp_path):
    return start_directory(tmp_path / "start", corpus)


def test_it_needs_pairs_or_texts_and_may_be_held_on_others():
    on_pairs = Irepair.from_config({"pairs": "p.tsv", "clean_texts": "clean"})
    needed = {"pairs": Pairs("p.tsv", "paradetox"), "clean_texts": LabelledTexts("clean")}
    assert on_pairs.needs() == needed
    assert Irepair.from_config({"texts": "t"}).needs() == {"texts": LabelledTexts("t")}


def given_of(files, *names, clean=False):
    found = {name: files[name] for name in names}
    return {**found, "clean_texts": files["texts"]} if clean else found


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("source", ["pairs", "texts"])
def test_a_model_learns_the_harmless_texts(source, clean, corpus, files, start, tmp_path):
    options = {source: "x", **FAST, **({"clean_texts": "x"} if clean else {})}
    given = given_of(files, source, clean=clean)
    made = tune("irepair", options, given, corpus=corpus, start=start, output=tmp_path / "0")
    examples = len(PAIRS) if source == "pairs" else 3
    assert made.record["examples"] == examples
    assert sum(made.record["steps_by_block"]) == made.record["steps"] == 6 * -(-examples // 2)
    assert made.losses[-1]["loss"] < made.losses[0]["loss"] - 0.1
    assert set(made.columns) <= set(made.losses[-1])
    outside = {
        name
        for name, _ in made.model.named_parameters()
        if not any(name in names for names in names_by_block(made.model))
    }
    assert outside and not outside & changed_parameters(made.model, load_model(start))


def test_the_toxic_side_is_not_read(corpus, files, start, tmp_path):
    other = [PreferencePair(pair.prompt, pair.chosen, "zzz") for pair in PAIRS]
    write_jsonl(tmp_path / "other.jsonl", [asdict(pair) for pair in other])
    made = [
        tune("irepair", {"pairs": "x", **FAST}, {"pairs": [path]}, corpus=corpus, start=start,
             output=tmp_path / path.stem)
        for path in (files["pairs"][0], tmp_path / "other.jsonl")
    ]  # fmt: skip
    assert_same_weights(*(one.model for one in made))


def test_no_epoch_leaves_the_model(corpus, files, start, tmp_path):
    made = tune("irepair", {"texts": "x", "epochs": 0}, given_of(files, "texts"), corpus=corpus,
                start=start, output=tmp_path / "0")  # fmt: skip
    assert_same_weights(made.model, load_model(start))
    assert made.record["steps"] == 0


@pytest.mark.parametrize("share", [{}, {"share": 0.6}])
def test_an_interrupted_training_ends_with_the_same_bits(
    share, corpus, files, start, tmp_path, monkeypatch
):
    options = {"pairs": "x", "clean_texts": "x", **FAST, **share}
    given = given_of(files, "pairs", clean=True)
    common = {"corpus": corpus, "start": start}
    whole = tune("irepair", options, given, output=tmp_path / "whole", **common)
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        tune("irepair", options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune("irepair", options, given, output=tmp_path / "parts", **common)
    assert_same_weights(resumed.model, whole.model)
    assert [one["loss"] for one in resumed.losses] == [one["loss"] for one in whole.losses]
    assert resumed.record["steps_by_block"] == whole.record["steps_by_block"]


def test_texts_of_one_kind_are_refused(corpus, files, start, tmp_path):
    write_jsonl(tmp_path / "toxic.jsonl", [{"text": "abcd", "label": 1.0}])
    with pytest.raises(InputError, match="toxic.jsonl: no text is nontoxic"):
        tune("irepair", {"texts": "x"}, {"texts": [tmp_path / "toxic.jsonl"]}, corpus=corpus,
             start=start, output=tmp_path / "0")  # fmt: skip
