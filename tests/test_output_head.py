"""The output head gets a weight of its own, and nothing else changes."""

import pytest
import torch

from edited_models import logits, reloaded, state, touched, with_head
from ifguide.errors import InputError
from ifguide.models.output_head import mean_state, untie_head
from small_models import FAMILIES, random_tokens


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_untied_head_changes_alone(family, tied, tmp_path):
    model = with_head(family, tied=tied, dtype=torch.float32)
    before, said = state(model), logits(model)
    head = untie_head(model)
    assert not touched(before, model)
    assert torch.equal(logits(model), said)
    head.weight.data *= 0.5
    model.tie_weights()  # the configuration says that there is nothing to tie
    assert touched(before, model) == {"lm_head.weight"}
    again = reloaded(model, tmp_path)
    assert again.config.tie_word_embeddings is False
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), said)
    assert torch.equal(again.get_input_embeddings().weight, before[name_of_embeddings(model)])


def name_of_embeddings(model) -> str:
    embeddings = model.get_input_embeddings()
    return next(f"{name}.weight" for name, m in model.named_modules() if m is embeddings)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_its_own_is_left(family):
    model = with_head(family, tied=False)
    weight = model.get_output_embeddings().weight
    assert untie_head(model).weight is weight


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_state_is_that_of_texts_read_one_by_one(family, batch_size):
    model = with_head(family, tied=False)
    tokens = random_tokens(1, 28)[0].tolist()
    texts = [tokens[:9], tokens[9:12], tokens[12:24], tokens[24:28]]
    places = [range(2, 9), range(0, 1), range(0, 0), range(3, 4)]
    found = mean_state(model, texts, places, batch_size=batch_size)
    with torch.no_grad():
        states = [
            model.base_model(input_ids=torch.tensor([text])).last_hidden_state[0, place]
            for text, own in zip(texts, places, strict=True)
            for place in own
        ]
    assert len(states) == 9
    torch.testing.assert_close(found, torch.stack(states).mean(0), rtol=1e-12, atol=1e-12)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(InputError, match="no output head"):
        untie_head(with_head("gpt2", tied=False).base_model)
