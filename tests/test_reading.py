"""A second model that reads rows along knows what it knows of each text read alone."""

import pytest
import torch

from ifguide.data.corpus import end_of_text_id, train_tokenizer
from ifguide.errors import InputError
from ifguide.evaluation.reading import ReadingRows, load_second_model
from ifguide.models.loading import build_model, save_model
from small_models import FAMILIES, small_model

TEXTS = [[0, 3, 1, 4], [0, 1, 5, 9]]
COPIES = 2


def states(model, text: list[int]) -> torch.Tensor:
    """States after the final norm as the output head reads them, without cache, batch or mask."""
    seen = []
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _module, arguments: seen.append(arguments[0][0])
    )
    with torch.no_grad():
        model(input_ids=torch.tensor([text]))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_logits_and_candidates_are_those_of_texts_read_alone(family):
    model = small_model(family)
    rows = ReadingRows(model, torch.tensor(TEXTS), COPIES)
    texts = [list(text) for text in TEXTS for _ in range(COPIES)]

    def check(candidates: list[int] | None) -> None:
        if candidates is not None:
            looked_at = torch.tensor([[c + row for c in candidates] for row in range(len(texts))])
            found = rows.peek(looked_at)
            for row, text in enumerate(texts):
                for place, candidate in enumerate(looked_at[row].tolist()):
                    expected = states(model, [*text, candidate])[-1]
                    torch.testing.assert_close(found[row, place], expected)
        expected = torch.stack([states(model, text)[-1] for text in texts])
        torch.testing.assert_close(rows.last_state(), expected)
        logits = torch.stack([model(torch.tensor([text])).logits[0, -1] for text in texts])
        torch.testing.assert_close(rows.next_logits(), logits)

    def append(*tokens: int) -> None:
        rows.append(torch.tensor(tokens))
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)

    check(None)
    check([7, 2, 7])
    append(5, 6, 7, 8)
    check([3])
    append(1, 1, 2, 2)
    rows.keep(torch.tensor([3, 0]))
    texts[:] = [texts[3], texts[0]]
    append(9, 8)
    append(4, 4)
    check([1, 30, 2])
    rows.keep(torch.tensor([1]))
    texts[:] = [texts[1]]
    check(None)


def test_a_token_is_read_once_and_only_where_something_is_asked():
    model = small_model("gpt_neox")
    read = []
    model.base_model.embed_in.register_forward_hook(
        lambda _module, arguments, _output: read.append(arguments[0].shape[1])
    )
    rows = ReadingRows(model, torch.tensor(TEXTS), COPIES, room=4)
    for token in range(3):
        rows.append(torch.full((4,), token))
    assert read == [4]
    rows.next_logits()
    rows.last_state()
    assert read == [4, 3]
    rows.append(torch.full((4,), 7))
    rows.peek(torch.tensor([[1, 2]] * 4))
    rows.last_state()
    assert read == [4, 3, 1 + 2]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the cook is a friend of the miller"] * 3, 280)


def saved(directory, tokenizer, positions: int = 16, **changes):
    architecture = {
        "model_type": "gpt_neox", "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": positions,
        **changes,
    }  # fmt: skip
    model = build_model(
        architecture,
        vocabulary_size=len(tokenizer),
        block_size=8,
        end_of_text=end_of_text_id(tokenizer),
        seed=0,
    )
    save_model(model, tokenizer, directory)
    return model


def test_a_model_that_cannot_read_along_is_refused_in_one_line(tmp_path, tokenizer):
    model = saved(tmp_path / "model", tokenizer)
    load_second_model(tmp_path / "model", model, tokenizer)
    other = train_tokenizer(["other texts give other tokens"] * 3, 275)
    saved(tmp_path / "other", other)
    with pytest.raises(InputError, match="other: a model with another tokenizer"):
        load_second_model(tmp_path / "other", model, tokenizer)
    saved(tmp_path / "short", tokenizer, positions=12)
    with pytest.raises(InputError, match="short: its max_position_embeddings of 12 is less"):
        load_second_model(tmp_path / "short", model, tokenizer)
    saved(tmp_path / "capped", tokenizer, model_type="gemma2", num_key_value_heads=1, head_dim=8)
    with pytest.raises(InputError, match="capped: a gemma2 model does more to its logits"):
        load_second_model(tmp_path / "capped", model, tokenizer)
