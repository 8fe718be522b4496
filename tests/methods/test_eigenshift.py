"""EigenShift: the algebra of the edit, the states that rank directions, and what is left alone."""

import math
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2_contingency

from edited_models import logits, reloaded, state, touched, with_head
from ifguide.data.own_generations import OwnGeneration
from ifguide.errors import InputError
from ifguide.files.artifacts import write_jsonl
from ifguide.methods.eigenshift import (
    Eigenshift,
    EigenshiftOptions,
    emissions,
    likelihood_ratio,
    most_different,
    most_toxic_place,
    scaled,
    singular_vectors,
    toxic_tokens,
)
from ifguide.methods.step import EditJob
from small_models import FAMILIES, VOCABULARY, random_tokens

CURSE = 7
SOMEWHERE = Path("own.jsonl")


def generations() -> list[list[OwnGeneration]]:
    """Prompts of six tokens with four continuations each, half of them with a curse, and toxic."""
    rows = random_tokens(60, 12, seed=5) % (VOCABULARY - 1) + 1
    rows[rows == CURSE] = CURSE + 1
    prompts = []
    for number, row in enumerate(rows.tolist()):
        own = []
        for sample in range(4):
            continuation = row[6:][sample:]
            toxicity = float(sample % 2)
            if toxicity:
                continuation = [*continuation, CURSE, 3, CURSE]
            own.append(OwnGeneration(row[: 3 + number % 4], continuation, "", toxicity))
        prompts.append(own)
    return prompts


def written(folder: Path) -> Path:
    path = folder / "own.jsonl"
    records = [
        {**one._asdict(), "prompt_index": number, "sample": sample}
        for number, own in enumerate(generations())
        for sample, one in enumerate(own)
    ]
    write_jsonl(path, records)
    return path


def edited(model, folder: Path, **options):
    step = Eigenshift(EigenshiftOptions(generations="own", **options))
    step.edit(EditJob(model, None, 0), {"generations": [written(folder)]})
    return model


# --- the algebra ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_lose_what_the_chosen_directions_made(family, tied, tmp_path):
    """z' = z − s W v vᵀ h, with the direction that differs most found text by text."""
    model = with_head(family, tied=tied)
    weight = model.get_output_embeddings().weight.detach().clone()
    before = logits(model)
    with torch.no_grad():
        hidden = model.base_model(input_ids=random_tokens(3)).last_hidden_state
        differences = brute_force_difference(model)
    right = torch.linalg.svd(weight, full_matrices=False).Vh
    v = right[(right @ differences).abs().argmax()]
    edited(model, tmp_path, strength=0.7, share=1e-6)
    expected = before - 0.7 * (hidden @ v)[..., None] * (weight @ v)
    torch.testing.assert_close(logits(model), expected, rtol=1e-10, atol=1e-10)


def brute_force_difference(model) -> torch.Tensor:
    """Mean state that makes the first curse of toxic continuations, less that of the first token of
    nontoxic ones; each text is read by itself."""
    sides: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for one in (one for own in generations() for one in own):
        toxic = one.toxicity >= 0.5
        before = one.continuation[: one.continuation.index(CURSE)] if toxic else []
        text = torch.tensor([[*one.prompt, *before]])
        sides[toxic].append(model.base_model(input_ids=text).last_hidden_state[0, -1])
    return torch.stack(sides[True]).mean(0) - torch.stack(sides[False]).mean(0)


def test_the_spectrum_is_scaled_where_it_was_chosen():
    weight = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, values, right = singular_vectors(weight)
    chosen = torch.tensor([1, 4])
    changed = scaled(weight, right[chosen], 0.9)
    expected = values.clone()
    expected[chosen] *= 0.1
    torch.testing.assert_close(torch.linalg.svdvals(changed), expected.sort(descending=True)[0])
    gone = scaled(weight, right[chosen], 1.0)
    torch.testing.assert_close(gone @ right[chosen].T, torch.zeros(20, 2, dtype=torch.float64))
    others = right[torch.tensor([0, 2, 3, 5])]
    torch.testing.assert_close(gone @ others.T, weight @ others.T)


@pytest.mark.parametrize("rank", ["abs", "signed"])
def test_the_signs_of_singular_vectors_mean_nothing(rank):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(20, 6, dtype=torch.float64, generator=generator)
    difference = torch.randn(6, dtype=torch.float64, generator=generator)
    left, _, right = singular_vectors(weight)
    chosen = most_different(left, right, difference, rank, 0.5)
    assert len(chosen) == 3
    for number in range(2**6):
        flips = torch.tensor([1.0 - 2 * (number >> bit & 1) for bit in range(6)])
        again = most_different(left * flips, right * flips[:, None], difference, rank, 0.5)
        assert torch.equal(again, chosen)


def test_ranks_by_size_or_by_the_sign_of_the_largest_entry():
    left = torch.tensor([[0.8, 0.6], [-0.6, 0.0], [0.0, -0.8]])
    right, difference = torch.eye(2), torch.tensor([1.0, 2.0])
    assert most_different(left, right, difference, "abs", 0.5).tolist() == [1]
    # The second left vector is turned round, so that its D is −2.
    assert most_different(left, right, difference, "signed", 0.5).tolist() == [0]


# --- what is touched ------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_head_is_touched_and_the_model_is_loaded_as_it_was_saved(family, tied, tmp_path):
    model = with_head(family, tied=tied, dtype=torch.float32)
    before = state(model)
    edited(model, tmp_path, share=0.25)
    assert touched(before, model) == {"lm_head.weight"}
    again = reloaded(model, tmp_path / "saved")
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_of_strength_0_it_is_the_model_that_it_began_with(family, tied, tmp_path):
    model = with_head(family, tied=tied)
    before = state(model)
    edited(model, tmp_path, strength=0, share=1.0)
    assert not touched(before, model)
    assert model.config.tie_word_embeddings is tied


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_in_half_precision_is_edited_as_a_wider_one(family, tmp_path):
    """Directions are removed from the weights as they are, to the last bit that they have."""
    narrow = with_head(family, tied=True, dtype=torch.bfloat16)
    weight = narrow.get_output_embeddings().weight.detach().double()
    edited(narrow, tmp_path, share=1.0, strength=0.5)
    found = narrow.get_output_embeddings().weight
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.detach(), (0.5 * weight).bfloat16(), rtol=2**-7, atol=0)


def test_the_same_again(tmp_path):
    heads = [
        edited(with_head("gpt2", tied=True), tmp_path, share=0.3).get_output_embeddings().weight
        for _ in range(2)
    ]
    assert torch.equal(*heads)


# --- which tokens are toxic -----------------------------------------------------------------------


def test_a_token_counts_once_a_continuation_and_by_its_odds():
    toxic = [[1, 2, 2, 2], [1, 2], [1, 3]] * 10
    nontoxic = [[1, 3], [1, 4], [1, 5]] * 10
    found = toxic_tokens(toxic, nontoxic)
    assert set(found) == {2}
    assert found[2] == pytest.approx(math.log(20.5 * 30.5 / (0.5 * 10.5)))


@pytest.mark.parametrize(("a", "m", "b", "n"), [(20, 30, 0, 30), (5, 7, 11, 50), (3, 9, 3, 9)])
def test_the_evidence_is_the_likelihood_ratio_of_independence(a, m, b, n):
    table = [[a, m - a], [b, n - b]]
    expected = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert likelihood_ratio(a, m, b, n) == pytest.approx(expected, abs=1e-9)


def test_the_toxic_token_is_the_first_of_the_most_toxic():
    assert most_toxic_place([4, 2, 1, 2, 1], {1: 3.0, 2: 2.0}) == 2
    assert most_toxic_place([4, 2, 1, 2, 1], {1: 3.0, 2: 3.0}) == 1
    assert most_toxic_place([4, 5], {1: 3.0}) is None


@pytest.mark.parametrize("nontoxic", ["first", "every"])
def test_states_are_those_right_before_their_tokens(nontoxic):
    prompts = generations()
    toxic, others = emissions(prompts, nontoxic, SOMEWHERE)
    curses = [one for own in prompts for one in own if one.toxicity]
    for text, places, one in zip(*toxic, curses, strict=True):
        whole = [*one.prompt, *one.continuation]
        assert list(places) == [whole.index(CURSE) - 1] == [len(text) - 1]
        assert text == whole[: len(text)]
    kind = [one for own in prompts for one in own if not one.toxicity]
    for text, places, one in zip(*others, kind, strict=True):
        whole = [*one.prompt, *one.continuation]
        made = [whole[place + 1] for place in places]
        assert made == (one.continuation[:1] if nontoxic == "first" else one.continuation)
        assert text == whole[: places[-1] + 1]


def test_the_states_that_count_change_the_edit(tmp_path):
    one, other = (
        edited(with_head("llama", tied=False), tmp_path, nontoxic=which, share=0.3)
        for which in ("first", "every")
    )
    assert not torch.equal(logits(one), logits(other))


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (lambda one: one.toxicity < 0.5, "none of 120 continuations is toxic"),
        (lambda one: one.toxicity >= 0.5, "none of 120 continuations is nontoxic"),
    ],
)
def test_one_kind_of_continuation_is_not_enough(keep, said):
    with pytest.raises(InputError, match=f"own.jsonl: {said}; .*own_generations"):
        emissions([[one for one in own if keep(one)] for own in generations()], "first", SOMEWHERE)


def test_too_few_continuations_tell_no_token():
    with pytest.raises(InputError, match="no token comes with toxicity in 2 toxic and 2 nontoxic"):
        emissions(generations()[:1], "first", SOMEWHERE)
