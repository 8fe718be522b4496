"""Decoding with gradients on biases: against the definition, its limits, and second attempts."""

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from guided_texts import assert_rows_do_not_matter, speaker, spoken
from ifguide.data.corpus import end_of_text_id
from ifguide.errors import InputError
from ifguide.evaluation import bias_tuning
from ifguide.evaluation.bias_tuning import BiasTuning, guidance_of_attempts
from ifguide.evaluation.generation import (
    Guidance,
    RetriedGuidance,
    Sampling,
    generate_batch,
    uniform_numbers,
)
from ifguide.files.tensor_files import write_tensors
from ifguide.methods.step import DecodingJob
from ifguide.methods.uddia import Uddia, attempts_of
from ifguide.models.bias_shifts import biased_modules, shifted
from small_models import small_model

FAMILIES = ("gpt_neox", "gpt2")  # those with biases
SETTINGS = {"learning_rate": 0.06, "tuned_share": 0.9}
SAMPLING = Sampling(continuations=4, max_new_tokens=5)
PROMPTS = torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])


def probe(width: int = 16) -> dict[str, torch.Tensor]:
    weight = torch.randn(width, generator=torch.Generator().manual_seed(1))
    return {"weight": weight, "bias": torch.tensor([0.3])}


def numbers() -> torch.Tensor:
    return torch.from_numpy(np.concatenate([uniform_numbers(seed, SAMPLING) for seed in (5, 6)]))


@pytest.mark.parametrize("family", FAMILIES)
def test_biases_of_the_upper_blocks_and_the_final_norm_are_tuned(family):
    model = small_model(family)
    names = {"gpt_neox": ("gpt_neox.layers", "gpt_neox.final_layer_norm"),
             "gpt2": ("transformer.h", "transformer.ln_f")}[family]  # fmt: skip
    for blocks in (1, 2):
        found = biased_modules(model, blocks)
        places = range(2 - blocks, 2)
        expected = {
            name.rpartition(".")[0]
            for name, _ in model.named_parameters()
            if name.endswith(".bias")
            and (name.startswith(tuple(f"{names[0]}.{p}." for p in places)) or names[1] in name)
        }
        assert set(found) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_shifts_are_biases_of_each_row_s_own(family):
    """Against copies of the model whose bias parameters are changed."""
    model, tokens = small_model(family), torch.tensor([[3, 1, 4, 1], [1, 5, 9, 2]])
    modules = biased_modules(model, 1)
    generator = torch.Generator().manual_seed(5)
    shifts = {
        name: torch.randn(2, 1, len(module.bias), generator=generator, dtype=torch.float64)
        for name, module in modules.items()
    }
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        with shifted(modules, shifts):
            found = model(tokens).logits
        for row in range(2):
            changed = copy.deepcopy(model)
            for name in modules:
                changed.get_submodule(name).bias += shifts[name][row, 0]
            torch.testing.assert_close(found[row], changed(tokens[row : row + 1]).logits[0])
        plain = model(tokens).logits
        assert not torch.allclose(found, plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@torch.enable_grad()
def tuned_by_definition(model, text: list[int], blocks: int) -> torch.Tensor:
    """log p' of one text: bias parameters, autograd and Adam of PyTorch, no batch, no shifts."""
    copied = copy.deepcopy(model)
    biases = [copied.get_submodule(name).bias for name in biased_modules(copied, blocks)]
    weight, bias = (tensor.double() for tensor in probe().values())
    past, states = None, torch.zeros(16, dtype=torch.float64)
    with torch.no_grad():
        if len(text) > 1:
            read = copied.base_model(torch.tensor([text[:-1]]), use_cache=True)
            past, states = read.past_key_values, read.last_hidden_state[0].sum(0)
        original = model(torch.tensor([text])).logits[0, -1].log_softmax(-1)
    optimizer = torch.optim.Adam(biases, lr=SETTINGS["learning_rate"])
    last = torch.tensor([text[-1:]])
    read = copied.base_model(last, past_key_values=copy.deepcopy(past), use_cache=True)
    head, embeddings = copied.get_output_embeddings(), copied.get_input_embeddings()
    soft = head(read.last_hidden_state).softmax(-1) @ embeddings.weight
    ahead = copied.base_model(
        inputs_embeds=soft, past_key_values=read.past_key_values, use_cache=True
    )
    state = read.last_hidden_state[0, 0] + ahead.last_hidden_state[0, 0]
    mean = (states + state) / (len(text) + 1)
    toxic = weight @ mean + bias
    two_classes = torch.cat([-toxic / 2, toxic / 2])
    nn.functional.cross_entropy(two_classes[None], torch.tensor([0])).backward()
    optimizer.step()
    with torch.no_grad():
        read = copied.base_model(last, past_key_values=copy.deepcopy(past), use_cache=True)
        tuned = head(read.last_hidden_state[0, -1]).log_softmax(-1)
    return SETTINGS["tuned_share"] * tuned + (1 - SETTINGS["tuned_share"]) * original


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [1, 4])
def test_the_next_token_s_distribution_is_that_of_one_step_of_adam_on_the_biases(family, length):
    model = small_model(family)
    guidance = BiasTuning(model, probe(), biased_modules(model, 1), **SETTINGS)
    prompts = PROMPTS[:, :length]
    rows = guidance.begin(prompts, 2)
    texts = [list(text) for text in prompts.tolist() for _ in range(2)]
    with torch.no_grad():
        for tokens in ([7, 8, 9, 9], [1, 2], [30, 2]):
            logits = torch.stack([model(torch.tensor([text])).logits[0, -1] for text in texts])
            found = rows.logits(logits).log_softmax(-1)
            for row, text in enumerate(texts):
                expected = tuned_by_definition(model, text, 1).log_softmax(-1)
                torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-6)
            assert not torch.allclose(found, logits.log_softmax(-1), atol=1e-3)
            if len(texts) != len(tokens):  # rows leave the batch
                rows.keep(torch.tensor([3, 1]))
                texts = [texts[3], texts[1]]
            rows.append(torch.tensor(tokens))
            for text, token in zip(texts, tokens, strict=True):
                text.append(token)


def test_the_step_lowers_the_toxicity_that_the_probe_sees():
    model = small_model("gpt2")
    modules = biased_modules(model, 1)
    settings = {**SETTINGS, "learning_rate": 1e-3}
    rows = BiasTuning(model, probe(), modules, **settings).begin(PROMPTS, 1)
    weight = probe()["weight"].double()

    def seen() -> torch.Tensor:
        return model.base_model(PROMPTS).last_hidden_state.mean(1) @ weight

    with torch.no_grad():
        before = seen()
        with shifted(modules, rows.steps()):
            assert (seen() < before).all()


@pytest.fixture(params=FAMILIES)
def asked(request, tmp_path):
    """A model, its tokenizer, and the file of a probe."""
    model, tokenizer = speaker(request.param)
    write_tensors(tmp_path / "probe.safetensors", probe(), {})
    return model, tokenizer, {"texts": [tmp_path / "probe.safetensors"]}


def test_rows_and_padding_do_not_matter_and_the_model_is_left_as_it_was(asked):
    model, tokenizer, given = asked
    before = copy.deepcopy(model.state_dict())
    step = Uddia.from_config({"texts": "any", "max_perplexity": 250, "blocks": 2})
    with step.decode(DecodingJob(model, tokenizer, 6), given) as guidance:
        prompts = torch.tensor([[3, 1, 4]])
        written = guidance.begin(prompts, 1).logits(torch.zeros(1, len(tokenizer)).double())
        assert torch.isfinite(written).all()
        assert_rows_do_not_matter(model, tokenizer, guidance)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_without_a_learning_rate_it_is_the_model_itself(asked):
    model, tokenizer, given = asked
    plain = spoken(model, tokenizer, None)
    step = Uddia.from_config({"texts": "any", "learning_rate": 0})
    with step.decode(DecodingJob(model, tokenizer, 6), given) as guidance:
        assert spoken(model, tokenizer, guidance) == plain
    off = guidance_of_attempts(
        model, probe(), [2, 1], learning_rate=0.0, tuned_share=0.9, max_perplexity=0.0
    )
    assert spoken(model, tokenizer, off) == plain


def test_a_model_without_biases_is_refused_in_one_line(tmp_path):
    model, tokenizer = speaker("llama")
    write_tensors(tmp_path / "probe.safetensors", probe(), {})
    step = Uddia.from_config({"texts": "any"})
    with (
        pytest.raises(InputError, match="a llama model has no biases in its blocks"),
        step.decode(DecodingJob(model, tokenizer, 6), {"texts": [tmp_path / "probe.safetensors"]}),
    ):
        raise AssertionError("it was not refused")


@pytest.mark.parametrize(
    ("depth", "blocks", "fewer", "expected"),
    [
        (36, None, None, [18, 15, 12, 9, 6, 3]),
        (3, None, None, [1]),
        (1, None, None, [1]),
        (8, 5, 2, [5, 3, 1]),
    ],
)
def test_attempts_are_those_of_the_published_depth_in_proportion(depth, blocks, fewer, expected):
    assert attempts_of(depth, blocks, fewer) == expected


def test_more_blocks_than_the_model_has_are_refused():
    with pytest.raises(InputError, match=r"uddia\.blocks: 4 blocks are to be tuned, .* has 3"):
        attempts_of(3, 4, None)


def perplexity_by_definition(model, text: list[int], prompt: int, end: int) -> float:
    """exp of the mean loss of the tokens of the continuation, its end of text excluded."""
    written = text[prompt:]
    count = written.index(end) if end in written else len(written)
    with torch.no_grad():
        log_p = model(torch.tensor([text])).logits[0].log_softmax(-1)
    losses = [-log_p[prompt + k - 1, written[k]].item() for k in range(count)]
    return math.exp(sum(losses) / max(1, count))


def writings(model, attempts: list[int], end: int, max_perplexity: float | None, monkeypatch):
    """The continuations, and how many rows each attempt wrote, by the blocks that it tunes."""
    rows = []
    begin = BiasTuning.begin
    count = {len(biased_modules(model, blocks)): blocks for blocks in attempts}

    def counted(self, prompts, copies):
        rows.append((count[len(self.modules)], len(prompts) * copies))
        return begin(self, prompts, copies)

    with monkeypatch.context() as patched:
        patched.setattr(bias_tuning.BiasTuning, "begin", counted)
        guidance = guidance_of_attempts(
            model, probe(), attempts, max_perplexity=max_perplexity, **SETTINGS
        )
        found = generate_batch(
            model, PROMPTS, numbers(), SAMPLING, end_of_text=end, guidance=guidance
        )
    return found, rows


def test_continuations_of_too_high_a_perplexity_are_written_again_and_the_best_is_kept(monkeypatch):
    model = small_model("gpt_neox")
    single = {
        blocks: writings(model, [blocks], -1, None, monkeypatch)[0] for blocks in (2, 1)
    }  # of one attempt each
    end = single[2][:, 1:].flatten().mode().values.item()
    single = {blocks: writings(model, [blocks], end, None, monkeypatch)[0] for blocks in (2, 1)}
    texts = PROMPTS.repeat_interleave(4, dim=0)
    perplexity = {
        blocks: [
            perplexity_by_definition(model, [*text, *written], 4, end)
            for text, written in zip(texts.tolist(), found.tolist(), strict=True)
        ]
        for blocks, found in single.items()
    }
    never, rows = writings(model, [2, 1], end, torch.inf, monkeypatch)
    assert torch.equal(never, single[2]) and rows == [(2, 8)]
    always, rows = writings(model, [2, 1], end, 0.0, monkeypatch)
    assert rows == [(2, 8), (1, 8)]
    threshold = sorted(perplexity[2])[4]
    some, rows = writings(model, [2, 1], end, threshold, monkeypatch)
    assert rows == [(2, 8), (1, sum(one > threshold for one in perplexity[2]))]
    for row in range(8):
        best = min((2, 1), key=lambda blocks: perplexity[blocks][row])
        assert always[row].tolist() == single[best][row].tolist()
        kept = 2 if perplexity[2][row] <= threshold else best
        assert some[row].tolist() == single[kept][row].tolist()
    assert any(perplexity[1][row] < perplexity[2][row] for row in range(8))


def test_retries_see_padded_prompts_as_the_first_attempt_does():
    """Guidance that need not see the prompts may be retried too, whatever stands left of them."""

    class Forbidding(RetriedGuidance):
        """Faults: how often token 7 is said; the second attempt forbids it."""

        def faults(self, prompts, continuations, end_of_text):
            return (continuations == 7).sum(-1).double()

    class Without(Guidance):
        def begin(self, prompts, copies):
            rows = super().begin(prompts, copies)
            rows.logits = lambda logits: logits.index_fill(-1, torch.tensor([7]), -torch.inf)
            return rows

    model, uniform = small_model("gpt2"), numbers()
    guidance = Forbidding()
    guidance.retries = [Without()]
    padded = nn.functional.pad(PROMPTS, (2, 0), value=0)
    visible = (padded != 0).long()
    arguments = {"end_of_text": -1, "guidance": guidance}
    first = generate_batch(model, PROMPTS, uniform, SAMPLING, end_of_text=-1)
    found = generate_batch(model, padded, uniform, SAMPLING, visible=visible, **arguments)
    assert (first == 7).any() and not (found == 7).any()
    assert torch.equal(found, generate_batch(model, PROMPTS, uniform, SAMPLING, **arguments))
    untouched = ~(first == 7).any(-1)
    assert torch.equal(found[untouched], first[untouched])


def test_an_end_of_text_is_no_part_of_what_is_judged():
    model, tokenizer = speaker("gpt2")
    end = end_of_text_id(tokenizer)
    guidance = BiasTuning(model, probe(), biased_modules(model, 1), max_perplexity=0.0, **SETTINGS)
    written = torch.tensor([[5, 9, end, end], [end, end, end, end]])
    found = guidance.faults(torch.tensor([[3, 4]] * 2), written, end)
    expected = perplexity_by_definition(model, [3, 4, 5, 9, end], 2, end)
    torch.testing.assert_close(found, torch.tensor([expected, 1.0], dtype=torch.float64))


def test_options_out_of_bounds_are_refused():
    for mistaken in ({"learning_rate": -1}, {"blocks": 0}, {"tuned_share": 1.5}):
        with pytest.raises(ValidationError):
            Uddia.from_config({"texts": "labelled", **mistaken})
