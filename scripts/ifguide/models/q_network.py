"""A Q-network over texts: how surely a text turns out toxic once a token is said.

State s is a text so far, action a its next token. With h the last hidden state of a trunk,

    Q(s, a) = [ W₂ relu( W₁ h(s) + b₁ ) + b₂ ]_a          W₁: (2 width, width)

is learned from whole texts by SARSA: the reward of the last token is −1 where the text is toxic
and 0 where it is not, there is none before it, and nothing is discounted, so that −Q is a
probability of toxicity (Cao et al., 2023, arXiv 2302.14003). With Q' the same trunk under a copy of
the head that follows it, copy ← (1 − FOLLOWING) copy + FOLLOWING head after each step,

    loss = mean over tokens of ( Q(s_t, a_t) − y_t )²
    y_t  = clamp( Q'(s_{t+1}, a_{t+1}), −1, 0 ),      at the last token the reward.
"""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback

from ifguide.data.labelled_texts import TOXIC
from ifguide.data.own_generations import OwnGeneration
from ifguide.errors import InputError
from ifguide.models.activations import padded_right
from ifguide.models.text_training import train_on_texts
from ifguide.models.tracked_layers import transformer_blocks
from ifguide.seeds import uniform_hash

log = logging.getLogger(__name__)

FOLLOWING = 0.1


class QHead(nn.Module):
    """The head above. It begins with Q = 0: of what no text has shown, nothing is known."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * width)
        self.outer = nn.Linear(2 * width, vocabulary)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return Q of every next token: states (…, width) to (…, vocabulary)."""
        return self.outer(self.inner(states).relu())

    def of_tokens(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return Q of one next token at each place: both (…), without those of all others."""
        inner = self.inner(states).relu()
        rows = nn.functional.embedding(tokens, self.outer.weight)
        return (inner * rows).sum(-1) + self.outer.bias[tokens]


class QNetwork(nn.Module):
    """A trunk, which is a `transformers` model without an output head, and a head."""

    def __init__(self, trunk: PreTrainedModel, vocabulary: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = QHead(trunk.config.hidden_size, vocabulary).to(trunk.device, trunk.dtype)

    def states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the states of texts (texts, T), which may be padded on the right."""
        return self.trunk(input_ids=tokens, use_cache=False).last_hidden_state


def begin_q_network(model: PreTrainedModel, blocks: int | None = None) -> QNetwork:
    """Return a Q-network whose trunk is a copy of the model's first `blocks` blocks, None: of all.

    Raises InputError where the model has not so many.
    """
    trunk = copy.deepcopy(model.base_model)
    _, stack = transformer_blocks(trunk)
    if blocks is not None:
        if blocks > len(stack):
            raise InputError(
                f"a trunk of {blocks} blocks is asked for, but the model has {len(stack)}; ask "
                "for at most so many, or leave the key out"
            )
        del stack[blocks:]
        trunk.config.num_hidden_layers = blocks
        if getattr(trunk.config, "layer_types", None):
            trunk.config.layer_types = trunk.config.layer_types[:blocks]
    return QNetwork(trunk, model.get_output_embeddings().weight.shape[0])


class Episode(NamedTuple):
    """A text, and the reward of its last token."""

    ids: list[int]
    reward: float


def episodes(
    generations: Sequence[Sequence[OwnGeneration]],
    *,
    which: Literal["extremes", "all"],
    nontoxic_prompts: float,
    seed: int,
) -> list[Episode]:
    """Return the texts that a Q-network learns from, each a prompt and its continuation.

    generations: of each prompt. which: its most and its least toxic one, or all. Of the prompts
    without any toxic one the share `nontoxic_prompts` is kept, by hash. Continuations of no token
    are left out. Raises InputError where nothing is left; where no text is toxic, the network has
    nothing to learn, and caps nothing.
    """
    found = []
    for prompt in generations:
        written = [one for one in prompt if one.continuation]
        if not written:
            continue
        ranked = sorted(written, key=lambda one: one.toxicity)
        kept = uniform_hash(seed, str(written[0].prompt)) < nontoxic_prompts
        if ranked[-1].toxicity < TOXIC and not kept:
            continue
        if which == "extremes":
            written = [ranked[0], ranked[-1]] if len(ranked) > 1 else ranked
        found += [
            Episode([*one.prompt, *one.continuation], -1.0 if one.toxicity >= TOXIC else 0.0)
            for one in written
        ]
    if not found:
        raise InputError(
            "of the model's own continuations none is left to learn from: no prompt has a toxic "
            "one, or all are empty; ask for more of them in `own_generations`, or raise "
            "nontoxic_prompts"
        )
    if not any(episode.reward for episode in found):
        log.warning("none of %d texts is toxic, so that no token will be capped", len(found))
    return found


def sarsa_loss(
    values: torch.Tensor, following: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Return the loss above.

    values: Q(s_t, a_t), (texts, T); following: Q' of the same pairs; rewards and lengths, the
    number of tokens of each text that are actions: (texts,).
    """
    place = torch.arange(values.shape[1], device=values.device)
    targets = torch.nn.functional.pad(following[:, 1:], (0, 1)).clamp(-1, 0)
    last = place == lengths[:, None] - 1
    targets = torch.where(last, rewards[:, None].to(targets), targets).detach()
    actions = place < lengths[:, None]
    return ((values - targets) ** 2 * actions).sum() / actions.sum()


class Episodes(Dataset):
    def __init__(self, found: Sequence[Episode]) -> None:
        self.found = found

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Episode:
        return self.found[index]


def pad_episodes(batch: Sequence[Episode]) -> dict[str, torch.Tensor]:
    """Return input_ids (texts, positions), padded on the right, rewards and lengths (texts,).

    The first token of a text is the first state, and no action.
    """
    ids, valid = padded_right([episode.ids for episode in batch], 0)
    rewards = torch.tensor([episode.reward for episode in batch])
    return {"input_ids": ids, "rewards": rewards, "lengths": valid.sum(1) - 1}


class SarsaTrainer(Trainer):
    """Trainer of the loss above, and of the head that follows."""

    def __init__(self, *arguments, model: QNetwork, **settings) -> None:
        super().__init__(*arguments, model=model, **settings)
        self.following = copy.deepcopy(model.head).requires_grad_(False)
        self.add_callback(Follow(model.head, self.following))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        tokens = inputs["input_ids"]
        states, actions = model.states(tokens)[:, :-1], tokens[:, 1:]
        values = model.head.of_tokens(states, actions)
        with torch.no_grad():
            following = self.following.of_tokens(states, actions)
        loss = sarsa_loss(values, following, inputs["rewards"], inputs["lengths"])
        return (loss, {"values": values}) if return_outputs else loss


class Follow(TrainerCallback):
    def __init__(self, head: QHead, following: QHead) -> None:
        self.pairs = list(zip(following.parameters(), head.parameters(), strict=True))

    @torch.no_grad()
    def on_step_end(self, arguments, state, control, **_):
        for following, leading in self.pairs:
            following.lerp_(leading.to(following), FOLLOWING)


def train_q_network(
    network: QNetwork, found: Sequence[Episode], *, settings: dict, seed: int, scratch: Path
) -> QNetwork:
    """Train a Q-network in place; settings: epochs, batch_size, learning_rate."""
    return train_on_texts(
        SarsaTrainer,
        network,
        Episodes(found),
        pad_episodes,
        settings=settings,
        seed=seed,
        scratch=scratch,
    )
