"""Continuations of prompts: nucleus sampling whose random numbers belong to prompt and sample.

Prompts of similar length form a batch, padded on the left where that changes no logits. A prompt is
read once, and its key-value cache is shared out to all continuations of it. Rows that have ended
leave the batch.
"""

import inspect
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id, tokenize
from ifguide.errors import InputError
from ifguide.models.roomy_cache import share_out
from ifguide.seeds import prompt_seed

# So many tokens are looked for first: to find the sixteen most probable of 1,536 takes a fifth of
# the time that 256 take. Rows whose nucleus has more are searched sixteen times as wide.
NARROW_NUCLEUS = 16
WIDENING = 16
# So many logits make tokens at once on a processor: what is computed on the way fits its cache.
LOGITS_AT_ONCE = 2**18
# What a tokenizer says of a prompt takes kilobytes, of which the token ids alone are kept.
ENCODED_AT_ONCE = 256
# Rows that have ended are taken out of the batch once they are so large a share of it.
ENDED_SHARE = 0.125


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn: nucleus `top_p`, `temperature`, at most `max_new_tokens`."""

    continuations: int = 25
    top_p: float = 0.9
    temperature: float = 1.0
    max_new_tokens: int = 20


@dataclass(frozen=True)
class Continuation:
    """One continuation of one prompt: its text, and its number of tokens, end of text excluded."""

    prompt_index: int
    sample: int
    seed: int
    text: str
    tokens: int


class Rows:
    """What a decode-time method knows of the rows of a batch while they are written."""

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return new logits of every row's next token: (rows, vocabulary), as they are given."""
        return logits

    def weights(self, tokens: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return new weights, of any sum, of candidate tokens; all three (rows, candidates)."""
        return probabilities

    def append(self, token: torch.Tensor) -> None:
        """Take note of the next token (rows,) of every row."""

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (indices) only."""


class Guidance:
    """How a decode-time method changes the next token's distribution, row by row."""

    reads_prompts = False  # so that they must not be padded
    # Whether it weighs the `top_k` most probable tokens of the nucleus (None: all) anew.
    weighs_candidates = False
    top_k: int | None = None

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        """Begin a batch: `copies` rows for each of the prompts (prompts, length), prompt-major."""
        return Rows()


class RetriedGuidance(Guidance):
    """Guidance that judges whole continuations, and has those at fault written again.

    It writes the first attempt itself. Where a text is there already, nothing is written again.
    """

    # Guidance of the further attempts, in order.
    retries: Sequence[Guidance] = ()

    def faults(
        self, prompts: torch.Tensor, continuations: torch.Tensor, end_of_text: int
    ) -> torch.Tensor:
        """Return how much is wrong with each continuation, float (rows,): 0 is none.

        prompts: int64 (rows, length); continuations: int64 (rows, tokens), filled with the end of
        text after it. Of all attempts at a continuation that with the least fault is kept, the
        first of equal ones.
        """
        raise NotImplementedError


class ProcessorGuidance(Guidance):
    """Guidance by logits processors of `transformers`, which see each row's text so far."""

    reads_prompts = True

    def __init__(self, processors: Sequence[LogitsProcessor]) -> None:
        self.processors = processors

    def begin(self, prompts: torch.Tensor, copies: int) -> Rows:
        return ProcessedRows(self.processors, prompts.repeat_interleave(copies, dim=0))


class ProcessedRows(Rows):
    def __init__(self, processors: Sequence[LogitsProcessor], texts: torch.Tensor) -> None:
        self.processors = processors
        self.texts = texts

    def logits(self, logits: torch.Tensor) -> torch.Tensor:
        for processor in self.processors:
            logits = processor(self.texts, logits)
        return logits

    def append(self, token: torch.Tensor) -> None:
        self.texts = torch.cat([self.texts, token.unsqueeze(1)], dim=1)

    def keep(self, rows: torch.Tensor) -> None:
        self.texts = self.texts[rows]


def uniform_numbers(seed: int, sampling: Sampling) -> np.ndarray:
    """Return the uniform numbers of one prompt: float64 (continuations, max_new_tokens)."""
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.random((sampling.continuations, sampling.max_new_tokens))


def nucleus(
    logits: torch.Tensor, sampling: Sampling, width: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the most probable tokens, their probabilities, and whether the nucleus is complete.

    The nucleus is the smallest set of tokens whose probability reaches `top_p`.

    logits: (rows, vocabulary). Returns tokens int64 (rows, at most `width`), most probable first;
    their probabilities float64, zero outside the nucleus; and bool (rows,).
    """
    scaled = logits.float()
    if sampling.temperature != 1:
        scaled = scaled / sampling.temperature
    total = scaled.logsumexp(-1, keepdim=True)
    width = min(width, logits.shape[-1])
    if width < logits.shape[-1]:
        highest, tokens = scaled.topk(width)
    else:
        highest, tokens = scaled.sort(descending=True, stable=True)
    probabilities = (highest - total).double().exp()
    cumulative = probabilities.cumsum(-1)
    inside = cumulative - probabilities < sampling.top_p
    complete = (cumulative[:, -1] >= sampling.top_p) | (width == logits.shape[-1])
    return tokens, probabilities * inside, complete


def draw(tokens: torch.Tensor, weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draw one of `tokens` a row, in proportion to `weights`, by its uniform number.

    tokens int64 and weights float64: (rows, candidates); uniform float64: (rows,) in [0, 1).
    """
    cumulative = weights.cumsum(-1)
    drawn = torch.searchsorted(
        cumulative, uniform.unsqueeze(1) * cumulative[:, -1:], right=True
    ).clamp(max=tokens.shape[1] - 1)
    return tokens.gather(1, drawn).squeeze(1)


def nucleus_sample(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Draw one token a row from the nucleus: logits (rows, vocabulary), uniform (rows,)."""
    on_processor = logits.device.type == "cpu"
    at_once = max(1, LOGITS_AT_ONCE // logits.shape[-1]) if on_processor else len(logits)
    parts = zip(logits.split(at_once), uniform.split(at_once), strict=True)
    return torch.cat([_nucleus_sample(*part, sampling) for part in parts])


def _nucleus_sample(
    logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling
) -> torch.Tensor:
    drawn = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    rows, width = torch.arange(len(logits), device=logits.device), NARROW_NUCLEUS
    while len(rows):
        tokens, probabilities, complete = nucleus(logits, sampling, width)
        drawn[rows] = draw(tokens, probabilities, uniform)
        wider = ~complete
        rows, logits, uniform, width = rows[wider], logits[wider], uniform[wider], WIDENING * width
    return drawn


def candidates(
    logits: torch.Tensor, sampling: Sampling, rows: Rows, top_k: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `top_k` first tokens of the nucleus, and their weights by `rows`."""
    tokens, probabilities, _ = nucleus(logits, sampling, top_k or logits.shape[-1])
    count = int((probabilities > 0).any(0).sum())
    tokens, probabilities = tokens[:, :count], probabilities[:, :count]
    return tokens, rows.weights(tokens, probabilities)


def attention(visible: torch.Tensor | None, new: int) -> dict[str, torch.Tensor]:
    """Return the model's arguments that hide padding, of which there is none where visible is None.

    visible: int64 (rows, T), 0 at padding and 1 at tokens, the last `new` of which are read now.
    """
    if visible is None:
        return {}
    places = (visible.cumsum(-1) - 1).clamp(min=0)
    return {"attention_mask": visible, "position_ids": places[:, -new:]}


@torch.no_grad()
def generate_batch(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    uniform: torch.Tensor,
    sampling: Sampling,
    *,
    end_of_text: int,
    visible: torch.Tensor | None = None,
    guidance: Guidance | None = None,
) -> torch.Tensor:
    """Return continuations int64 (prompts · continuations, max_new_tokens), prompt-major.

    prompts: int64 (prompts, length); uniform: float64 (prompts · continuations, max_new_tokens);
    visible: int64 like prompts, 0 where they are padded on the left, None where they are not. After
    the end of text a row is filled with the end-of-text token. An attempt at a continuation takes
    the same random numbers as the one before.
    """
    found = _write(model, prompts, uniform, sampling, end_of_text, visible, guidance)
    if not isinstance(guidance, RetriedGuidance):
        return found
    single = replace(sampling, continuations=1)
    texts = prompts.repeat_interleave(sampling.continuations, dim=0)
    shown = None if visible is None else visible.repeat_interleave(sampling.continuations, dim=0)
    faults = guidance.faults(texts, found, end_of_text)
    for retry in guidance.retries:
        again = (faults > 0).nonzero().squeeze(1)
        if not len(again):
            break
        seen = None if shown is None else shown[again]
        written = _write(model, texts[again], uniform[again], single, end_of_text, seen, retry)
        wrong = guidance.faults(texts[again], written, end_of_text)
        better = wrong < faults[again]
        found[again[better]], faults[again[better]] = written[better], wrong[better]
    return found


def _write(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    uniform: torch.Tensor,
    sampling: Sampling,
    end_of_text: int,
    visible: torch.Tensor | None,
    guidance: Guidance | None,
) -> torch.Tensor:
    """Write the continuations of `generate_batch` once."""
    copies = sampling.continuations
    guided = guidance.begin(prompts, copies) if guidance else None
    output = model(
        input_ids=prompts, use_cache=True, logits_to_keep=1, **attention(visible, prompts.shape[1])
    )
    cache = output.past_key_values
    share_out(cache, copies, room=sampling.max_new_tokens)
    logits = output.logits[:, -1].repeat_interleave(copies, dim=0)
    if visible is not None:
        visible = visible.repeat_interleave(copies, dim=0)
    continuations = torch.full(uniform.shape, end_of_text, device=prompts.device)
    rows = torch.arange(len(uniform), device=prompts.device)  # those that still go on
    for step in range(sampling.max_new_tokens):
        if guided is not None:
            logits = guided.logits(logits)
        if guided is not None and guidance.weighs_candidates:
            weighed = candidates(logits, sampling, guided, guidance.top_k)
            token = draw(*weighed, uniform[rows, step])
        else:
            token = nucleus_sample(logits, uniform[rows, step], sampling)
        if step:
            token = torch.where(continuations[rows, step - 1] == end_of_text, end_of_text, token)
        continuations[rows, step] = token
        going = (token != end_of_text).nonzero().squeeze(1)
        if not len(going) or step == sampling.max_new_tokens - 1:
            break
        if len(going) <= (1 - ENDED_SHARE) * len(rows):
            rows, token = rows[going], token[going]
            cache.batch_select_indices(going)
            visible = None if visible is None else visible[going]
            if guided is not None:
                guided.keep(going)
        if guided is not None:
            guided.append(token)
        if visible is not None:
            visible = torch.nn.functional.pad(visible, (0, 1), value=1)
        output = model(
            input_ids=token.unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
            **attention(visible, 1),
        )
        logits = output.logits[:, -1]
    return continuations


def padded(prompts: Sequence[np.ndarray], end_of_text: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts as int64 (prompts, longest), padded on the left, and `visible` beside them."""
    longest = max(map(len, prompts))
    tokens = np.full((len(prompts), longest), end_of_text, dtype=np.int64)
    visible = np.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = prompt
        visible[row, longest - len(prompt) :] = 1
    return torch.from_numpy(tokens), torch.from_numpy(visible)


@torch.no_grad()
def hides_padding(model: PreTrainedModel, prompts: Sequence[np.ndarray], end_of_text: int) -> bool:
    """Whether the shortest prompt, padded to the longest, leaves the model's logits as they are.

    Not so for recurrent models, and for those that cannot be told where a text begins.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    shortest, longest = min(prompts, key=len), max(prompts, key=len)
    tokens, visible = (part.to(model.device) for part in padded([shortest, longest], end_of_text))
    alone = model(input_ids=tokens[:1, -len(shortest) :]).logits[0, -1]
    beside = model(input_ids=tokens, **attention(visible, len(longest))).logits[0, -1]
    # Half of the digits may be lost to rounding; a padded text that is read is off by more.
    return bool((beside - alone).norm() <= torch.finfo(alone.dtype).eps ** 0.5 * alone.norm())


def similar_length_batches(
    prompts: Sequence[np.ndarray], prompts_per_batch: int, *, padding: bool
) -> Iterator[list[int]]:
    """Yield indices of prompts of equal length; with padding, of at least half the longest's.

    The longest come first: what memory the job needs it needs at once, and later batches fit there.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    batch: list[int] = []
    for index in order:
        most = len(prompts[batch[0]]) if batch else 0
        if batch and (
            (2 if padding else 1) * len(prompts[index]) < most or len(batch) == prompts_per_batch
        ):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], *, positions: int
) -> list[np.ndarray]:
    """Tokenize prompts. Raises InputError for one that is empty or exceeds `positions` tokens."""
    encoded = []
    for start in range(0, len(prompts), ENCODED_AT_ONCE):
        batch = prompts[start : start + ENCODED_AT_ONCE]
        for prompt, text in zip(batch, tokenize(tokenizer, batch), strict=True):
            if not len(text.ids):
                raise InputError("a prompt is empty; remove it from the benchmark's files")
            if len(text.ids) > positions:
                raise InputError(
                    f"a prompt of {len(text.ids)} tokens leaves no room in the model's context for "
                    f"the new tokens (at most {positions} fit): {prompt[:60]!r}…; shorten or "
                    "remove it"
                )
            encoded.append(text.ids.astype(np.int32))
    return encoded


def generate_ids(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[int],
    sampling: Sampling,
    *,
    end_of_text: int,
    rows_per_batch: int = 512,
    guidance: Guidance | None = None,
    finished: AbstractSet[int] = frozenset(),
) -> Iterator[tuple[int, list[list[int]]]]:
    """Yield the index of each prompt that is not `finished`, the longest first, and continuations.

    prompts: token ids, (length,) each; seeds: of each prompt's random numbers. A continuation ends
    before its end of text. A batch has the same prompts whichever of them are finished, because
    sums over other shapes are rounded otherwise.
    """
    copies = sampling.continuations
    padding = not (guidance and guidance.reads_prompts)
    padding = padding and hides_padding(model, prompts, end_of_text)
    per_batch = max(1, rows_per_batch // copies)
    for batch in similar_length_batches(prompts, per_batch, padding=padding):
        if finished >= set(batch):
            continue
        uniform = np.concatenate([uniform_numbers(seeds[index], sampling) for index in batch])
        tokens, visible = padded([prompts[index] for index in batch], end_of_text)
        rows = generate_batch(
            model,
            tokens.to(model.device),
            torch.from_numpy(uniform).to(model.device),
            sampling,
            end_of_text=end_of_text,
            visible=None if visible.all() else visible.to(model.device),
            guidance=guidance,
        ).tolist()
        rows = [row[: row.index(end_of_text)] if end_of_text in row else row for row in rows]
        for place, index in enumerate(batch):
            if index not in finished:
                yield index, rows[place * copies : (place + 1) * copies]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    rows_per_batch: int = 512,
    guidance: Guidance | None = None,
    finished: AbstractSet[int] = frozenset(),
) -> Iterator[Continuation]:
    """Yield the continuations of all prompts: those of one prompt together, ordered by sample.

    Those whose indices are in `finished` are left out, to the same bits. But for the rounding of
    sums, a continuation depends on the model, the seed, its prompt and its sample alone; the
    longest prompts come first. Raises InputError, before the first one, for an empty
    prompt or one that exceeds the model's context.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 2**31
    encoded = encode_prompts(tokenizer, prompts, positions=positions - sampling.max_new_tokens)
    seeds = [prompt_seed(seed, prompt) for prompt in prompts]
    for index, rows in generate_ids(
        model,
        encoded,
        seeds,
        sampling,
        end_of_text=end_of_text_id(tokenizer),
        rows_per_batch=rows_per_batch,
        guidance=guidance,
        finished=finished,
    ):
        for sample, ids in enumerate(rows):
            yield Continuation(index, sample, seeds[index], tokenizer.decode(ids), len(ids))
