"""Rows of a batch whose texts a second language model reads along, with a cache of its own.

A decode-time method appends each row's next token as it is drawn. A token is read once, and only
when something is asked of the text that ends in it.
"""

from pathlib import Path

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.corpus import end_of_text_id
from ifguide.data.tokenizers import load_tokenizer
from ifguide.errors import InputError
from ifguide.models.loading import HiddenStates, load_model
from ifguide.models.roomy_cache import share_out


class ReadingRows:
    """What a second model knows of the text of every row so far.

    It needs no output head but for `next_logits`; its states are those after the final norm, in
    its own dtype.
    """

    def __init__(
        self, model: PreTrainedModel, texts: torch.Tensor, copies: int, room: int = 0
    ) -> None:
        """Begin `copies` rows with each of the texts, text-major.

        texts: int64 (texts, length), unpadded; room: tokens that will be read at most, those that
        `peek` looks at included. More of them cost time, and nothing else. What exceeds the
        model's positions stands at the last one.
        """
        self.model = model
        self.positions = getattr(model.config, "max_position_embeddings", None) or 2**31
        self.cache = DynamicCache(config=model.config)
        self._last = self._read(texts)[:, -1].repeat_interleave(copies, dim=0)
        share_out(self.cache, copies, room)
        self._unread = texts.new_empty(len(texts) * copies, 0)

    def last_state(self) -> torch.Tensor:
        """Return the state at the last token of every row: (rows, width)."""
        if self._unread.shape[1]:
            self._last = self._read(self._unread)[:, -1]
            self._unread = self._unread[:, :0]
        return self._last

    def next_logits(self) -> torch.Tensor:
        """Return the model's own logits of the next token of every row: (rows, vocabulary)."""
        return self.model.get_output_embeddings()(self.last_state())

    def peek(self, candidates: torch.Tensor, head: nn.Module | None = None) -> torch.Tensor:
        """Return the state at each candidate, if it were the next token: (rows, candidates, width).

        candidates: int64 (rows, candidates); head: what is to be made of the states. All candidates
        stand at the same position, and none sees another: one pass reads what is unread, then the
        candidates, which leave the cache again.
        """
        past = self.cache.get_seq_length()
        unread, count = self._unread.shape[1], candidates.shape[1]
        place = torch.arange(unread + count, device=candidates.device)
        visible = candidates.new_ones(unread + count, past + unread + count, dtype=torch.bool)
        visible[:, past:] = (place < unread) & (place <= place[:, None])
        visible[:, past:] |= place == place[:, None]
        states = self._read(
            torch.cat([self._unread, candidates], dim=1),
            attention_mask=visible.expand(len(candidates), 1, *visible.shape),
            places=past + place.clamp(max=unread),
        )
        self.cache.crop(-count)
        if unread:
            self._last = states[:, unread - 1]
            self._unread = self._unread[:, :0]
        return (states if head is None else head(states))[:, unread:]

    def append(self, token: torch.Tensor) -> None:
        """Take note of the next token (rows,) of every row."""
        self._unread = torch.cat([self._unread, token.unsqueeze(1)], dim=1)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows (indices) only."""
        self.cache.batch_select_indices(rows)
        self._last, self._unread = self._last[rows], self._unread[rows]

    @torch.no_grad()
    def _read(
        self,
        tokens: torch.Tensor,
        places: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the states of tokens (rows, T), which follow on what the cache holds."""
        if places is None:
            past = self.cache.get_seq_length()
            places = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        return self.model.base_model(
            input_ids=tokens,
            attention_mask=attention_mask,
            position_ids=places.clamp(max=self.positions - 1).unsqueeze(0),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state


def require_same_tokens(
    second: PreTrainedTokenizerBase,
    model: PreTrainedTokenizerBase,
    where: str | Path,
    what: str = "a model",
) -> None:
    """Raise InputError unless a token id means the same to a second model and to the model."""
    same = second.get_vocab() == model.get_vocab()
    if not same or end_of_text_id(second) != end_of_text_id(model):
        raise InputError(
            f"{where}: {what} with another tokenizer than the language model, so that its "
            "token ids mean other texts; train it with the model's tokenizer"
        )


def load_second_model(
    directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load a language model that reads along with `model`, on its device.

    Raises InputError where it has another tokenizer, another number of logits or fewer positions,
    or does more to its logits than one linear head.
    """
    require_same_tokens(load_tokenizer(directory), tokenizer, directory)
    second = load_model(directory)
    for name in ("vocab_size", "max_position_embeddings"):
        own, needed = (getattr(one.config, name, None) for one in (second, model))
        if own is not None and needed is not None and own < needed:
            raise InputError(
                f"{directory}: its {name} of {own} is less than that of the language model, "
                f"{needed}; give it the model's architecture"
            )
    if second.get_output_embeddings() is None or HiddenStates(second).head is None:
        raise InputError(
            f"{directory}: a {second.config.model_type} model does more to its logits than one "
            "linear output head; only models whose logits are linear in their states read along"
        )
    return second.to(model.device)
