"""What every guidance of the next token has to hold to: nothing but its own text changes a row."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import train_tokenizer
from ifguide.evaluation.generation import Guidance, Sampling, generate
from small_models import small_model

PROMPTS = ["the cook", "the miller is", "a friend of the cook is", "of", "the cook is"]
SAMPLING = Sampling(continuations=3, max_new_tokens=6)


def speaker(family: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a small model in float64 and a tokenizer of as many tokens."""
    tokenizer = train_tokenizer(["the cook is a friend of the miller"] * 3, 280)
    return small_model(family, torch.float64, vocabulary=len(tokenizer)), tokenizer


def spoken(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    guidance: Guidance | None,
    prompts: list[str] = PROMPTS,
    rows_per_batch: int = 512,
) -> dict[tuple[str, int], str]:
    """Return the continuations by prompt and sample."""
    written = generate(
        model,
        tokenizer,
        prompts,
        SAMPLING,
        seed=3,
        rows_per_batch=rows_per_batch,
        guidance=guidance,
    )
    return {(prompts[c.prompt_index], c.sample): c.text for c in written}


def assert_rows_do_not_matter(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, guidance: Guidance
) -> None:
    """Batches of all prompts, of two, in another order, and each prompt alone speak the same, and
    otherwise than without guidance."""
    together = spoken(model, tokenizer, guidance)
    assert together == spoken(model, tokenizer, guidance, PROMPTS[::-1], rows_per_batch=6)
    alone = [spoken(model, tokenizer, guidance, [prompt], rows_per_batch=3) for prompt in PROMPTS]
    assert together == {key: text for part in alone for key, text in part.items()}
    assert together != spoken(model, tokenizer, None)
