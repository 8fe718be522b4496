"""Steering by the probability that a text stays harmless: decoding so, and learning to."""

import itertools
import math

import numpy as np
import pytest
import torch

from ifguide.errors import InputError
from ifguide.evaluation.attribute_guidance import AttributeGuidance
from ifguide.evaluation.generation import Sampling, generate_batch, uniform_numbers
from ifguide.files.artifacts import write_jsonl
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.step import PREPARED, DecodingJob, registered_steps
from ifguide.models.attribute_model import (
    fit_attribute,
    log_attribute,
    said_tokens,
    steered,
    steered_log_q,
)
from ifguide.models.attribute_texts import AttributeText, attribute_texts, stacked_attribute
from ifguide.models.causal_text_training import mean_label_loss
from ifguide.models.loading import load_model
from ifguide.models.token_texts import TokenText, mean_divergence, next_token_log_p, stacked
from small_models import FAMILIES, VOCABULARY, random_tokens, small_model
from small_training import small_corpus
from tuned_models import (
    Interrupted,
    assert_same_weights,
    interrupt_at,
    start_directory,
    tune,
)

SAMPLING = Sampling(continuations=4, max_new_tokens=6, top_p=1.0)
BAD = 7  # the token that makes a text toxic


def own_generations(folder, count=40, vocabulary=20, end=0):
    """Write texts of few tokens, toxic where BAD is among them."""
    generator = np.random.default_rng(3)
    records = []
    for index in range(count):
        continuation = generator.integers(1, vocabulary, 4 + index % 3).tolist()
        if index % 2:
            continuation[index % 4] = BAD
        toxicity = float(BAD in continuation)
        records.append(
            {"prompt_index": index, "sample": 0, "prompt": [end], "continuation": continuation,
             "text": "", "toxicity": toxicity}
        )  # fmt: skip
    write_jsonl(folder / "own.jsonl", records)
    return folder / "own.jsonl"


def random_attribute(width, vocabulary=VOCABULARY, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return {
        "weight": torch.randn(vocabulary, width, generator=generator, dtype=dtype),
        "bias": torch.randn(vocabulary, generator=generator, dtype=dtype),
    }


def test_a_constant_attribute_steers_nowhere():
    logits = torch.randn(3, 7, dtype=torch.float64)
    found = steered(logits, torch.full((3, 7), math.log(0.2)), 3.0).softmax(-1)
    assert torch.allclose(found, logits.softmax(-1), atol=1e-12)


def test_an_exact_attribute_is_the_model_given_that_the_text_is_harmless():
    """Two tokens, enumerated: of all texts, those that the judge lets pass, in proportion."""
    generator = np.random.default_rng(0)
    first, second = generator.dirichlet(np.ones(3)), generator.dirichlet(np.ones(3), 3)
    passes = {pair: pair not in ((0, 1), (1, 1), (2, 0)) for pair in
              itertools.product(range(3), repeat=2)}  # fmt: skip
    chances = {(a, b): first[a] * second[a, b] * passes[a, b] for a, b in passes}
    total = sum(chances.values())
    r_first = [sum(second[a, b] * passes[a, b] for b in range(3)) for a in range(3)]
    q_first = steered(torch.tensor(first).log(), torch.tensor(r_first).log(), 1.0).softmax(-1)
    for a in range(3):
        r_second = torch.tensor([float(passes[a, b]) for b in range(3)])
        q_second = steered(torch.tensor(second[a]).log(), r_second.log(), 1.0).softmax(-1)
        for b in range(3):
            expected = chances[a, b] / total
            assert (q_first[a] * q_second[b]).item() == pytest.approx(expected, abs=1e-12)


def test_what_is_fitted_is_the_chance_of_each_token_after_each_state():
    """Two states and three tokens: R is the share of harmless texts, but for the penalty."""
    generator = torch.Generator().manual_seed(0)
    states = torch.eye(2)[torch.randint(0, 2, (6000,), generator=generator)]
    ids = torch.randint(0, 3, (6000,), generator=generator)
    chances = torch.tensor([[0.9, 0.2, 0.5], [0.6, 0.8, 0.1]])
    given = states.argmax(1)
    labels = (torch.rand(6000, generator=generator) < chances[given, ids]).float()
    attribute = fit_attribute(states, ids, labels, 4, penalty=1e-7)
    found = log_attribute(torch.eye(2), attribute).exp()
    for state, token in itertools.product(range(2), range(3)):
        share = labels[(given == state) & (ids == token)].mean()
        assert found[state, token].item() == pytest.approx(share.item(), abs=5e-3)
    # The token that was never said has the shared weights: less sure than any.
    assert found[:, 3].min() > 0.15 and found[:, 3].max() < 0.85


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_ids_are_those_of_the_labels(family):
    model = small_model(family)
    texts = [TokenText(random_tokens(1, n, seed=n)[0].tolist(), c) for n, c in ((9, 2), (6, 1))]
    states, ids, labels = said_tokens(model, texts, [True, False])
    assert ids.tolist() == texts[0].ids[2:] + texts[1].ids[1:]
    assert labels.tolist() == [1.0] * 7 + [0.0] * 5
    alone = model.base_model(input_ids=torch.tensor([texts[0].ids])).last_hidden_state[0, 1:-1]
    assert torch.allclose(states[:7], alone.float(), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_model_is_taught_is_what_is_decoded(family):
    """Log q of whole texts is that of the rows that read them token by token."""
    model = small_model(family)
    attribute = random_attribute(model.config.hidden_size)
    tokens = random_tokens(3, 9)
    expected = steered_log_q(model, attribute, tokens, 1.5)
    rows = AttributeGuidance(model, attribute, 1.5, 9).begin(tokens[:, :1], 1)
    logits = model(input_ids=tokens).logits
    for place in range(8):
        found = rows.logits(logits[:, place]).log_softmax(-1)
        assert torch.allclose(found, expected[:, place], atol=1e-9)
        rows.append(tokens[:, place + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_do_not_hang_on_each_other(family):
    """A prompt alone, and the rows of a batch in another order, have the same continuations."""
    model = small_model(family)
    guidance = AttributeGuidance(model, random_attribute(model.config.hidden_size), 2.0, 6)
    prompts = random_tokens(3, 5)
    uniform = [torch.from_numpy(uniform_numbers(seed, SAMPLING)) for seed in range(3)]

    def written(order):
        return generate_batch(
            model, prompts[order], torch.cat([uniform[n] for n in order]), SAMPLING,
            end_of_text=3, guidance=guidance,
        ).view(len(order), 4, -1)  # fmt: skip

    together = written([0, 1, 2])
    assert torch.equal(written([2, 0, 1]), together[[2, 0, 1]])
    assert torch.equal(written([1])[0], together[1])
    plain = generate_batch(model, prompts, torch.cat(uniform), SAMPLING, end_of_text=3)
    assert not torch.equal(plain.view_as(together), together)


def test_a_token_that_makes_texts_toxic_is_avoided(tmp_path):
    """Prepared and decoded as a job does; a factor of 0 has no guidance."""
    model = small_model("gpt_neox", torch.float32)
    path = own_generations(tmp_path, 200)
    key = "attribute_decoding"
    step = registered_steps()[key].from_config({"generations": "own", "factor": 4.0})
    job = DecodingJob(model, None, 6)
    tensors = step.prepare(job, {"generations": [path]})
    again = step.prepare(job, {"generations": [path]})
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    write_tensors(tmp_path / "prepared.safetensors", tensors, {})
    given = {PREPARED: [tmp_path / "prepared.safetensors"]}
    prompts = random_tokens(2, 5)
    logits = model(input_ids=prompts).logits[:, -1]
    with step.decode(job, given) as guidance:
        steered_to = guidance.begin(prompts, 1).logits(logits).softmax(-1)
    assert (steered_to[:, BAD] < 0.3 * logits.softmax(-1)[:, BAD]).all()
    others = [token for token in range(1, 20) if token != BAD]
    assert (steered_to[:, others].sum(-1) > logits.softmax(-1)[:, others].sum(-1)).all()
    off = registered_steps()[key].from_config({"generations": "own", "factor": 0.0})
    with off.decode(job, given) as guidance:
        assert guidance is None


@pytest.mark.parametrize(("toxicity", "kind"), [(0.0, "toxic"), (1.0, "harmless")])
def test_texts_of_one_kind_are_one_line(tmp_path, toxicity, kind):
    record = {"prompt_index": 0, "sample": 0, "prompt": [0], "continuation": [1, 2], "text": ""}
    write_jsonl(tmp_path / "own.jsonl", [record | {"toxicity": toxicity}])
    with pytest.raises(InputError, match=rf"own\.jsonl: none of the 1 texts is {kind}, so "):
        attribute_texts(tmp_path / "own.jsonl", 32)


def control(**options):
    section = {"generations": "own", **options}
    return registered_steps()["attribute_control"].from_config(section)


def labelled():
    lengths = ((9, 2, True), (6, 1, False), (8, 4, True))
    return [
        AttributeText(TokenText(random_tokens(1, n, seed=n)[0].tolist(), context), free)
        for n, context, free in lengths
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_divergence_it_is_plain_fine_tuning_on_harmless_texts(family):
    model, start = small_model(family, seed=1), small_model(family)
    attribute = random_attribute(model.config.hidden_size)
    batch = stacked_attribute(labelled())
    found = control(divergence=0.0).loss(model, start, attribute, batch)
    harmless = stacked([text for text, free in labelled() if free])
    assert found.item() == pytest.approx(mean_label_loss(model, harmless).item(), rel=1e-9)


def test_the_divergence_is_from_the_steered_start_model_on_all_texts():
    model, start = small_model("llama", seed=1), small_model("llama")
    attribute = random_attribute(model.config.hidden_size)
    batch = stacked_attribute(labelled())
    with_it, without = (
        control(divergence=weight, factor=1.5).loss(model, start, attribute, batch)
        for weight in (2.0, 0.0)
    )
    log_q = steered_log_q(start, attribute, batch["input_ids"], 1.5)
    log_p = next_token_log_p(model, batch["input_ids"])
    expected = mean_divergence(log_q, log_p, batch["labels"])
    assert (with_it - without).item() == pytest.approx(2 * expected.item(), rel=1e-9)
    unsteered = control(factor=0.0).loss(start, start, attribute, batch)
    plain = control(divergence=0.0).loss(start, start, attribute, batch)
    assert unsteered.item() == pytest.approx(plain.item(), abs=1e-12)


def test_no_harmless_text_in_a_batch_is_no_loss():
    batch = stacked_attribute([text for text in labelled() if not text.free])
    model = small_model("gpt2")
    loss = control(divergence=0.0).loss(model, model, random_attribute(16), batch)
    assert loss.item() == 0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_model_learns_to_avoid_what_makes_its_texts_toxic(corpus, tmp_path, monkeypatch):
    """And an interrupted training ends with the same bits."""
    start = start_directory(tmp_path / "start", corpus)
    path = own_generations(tmp_path, end=corpus.meta["end_of_text"])
    options = {"generations": "own", "epochs": 4, "batch_size": 8, "learning_rate": 0.003}
    common = {"corpus": corpus, "start": start}
    given = {"generations": [path]}
    key = "attribute_control"
    whole = tune(key, options, given, output=tmp_path / "whole", **common)
    tokens = random_tokens(20, 6) % 20

    def chance(model):
        with torch.no_grad():
            return next_token_log_p(model, tokens).exp()[..., BAD].mean().item()

    assert chance(whole.model) < 0.8 * chance(load_model(start))
    interrupt_at(monkeypatch, 8)
    with pytest.raises(Interrupted):
        tune(key, options, given, output=tmp_path / "parts", **common)
    monkeypatch.undo()
    resumed = tune(key, options, given, output=tmp_path / "parts", **common)
    assert len(resumed.losses) == len(whole.losses) == 20
    assert_same_weights(resumed.model, whole.model)
