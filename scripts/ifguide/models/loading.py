"""Causal language models: built from an architecture, loaded from a directory, hashed, saved."""

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from ifguide.data.tokenizers import load_tokenizer, local_directory
from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.files.checksums import (
    file_sha256,
    is_result,
    joined_sha256,
    record_directory,
    recorded_sha256,
    remedy,
    verified_sha256,
    verify_directory,
)
from ifguide.models.architectures import longest_block, read_architecture
from ifguide.models.precision import at_least_float32

TRAINING_RECORD = "training.json"
# Settings that configurations take in and store under another name.
ROTARY_SETTINGS = (
    "rotary_pct",
    "rotary_emb_base",
    "rope_theta",
    "rope_scaling",
    "partial_rotary_factor",
)
# What wrappers put before the names of a model's tensors when its state is saved through them:
# `torch.compile`, and data-parallel training.
WRAPPERS = {r"^(_orig_mod\.|module\.)+": ""}
NAMES_SHOWN = 3
# Embedding matrices are padded for speed: rows beyond the tokenizer's vocabulary, at most so many.
LARGEST_PADDING = 1024


def build_model(
    section: dict,
    config_key: str = "models.*.architecture",
    *,
    vocabulary_size: int,
    block_size: int,
    end_of_text: int,
    seed: int,
) -> PreTrainedModel:
    """Return a randomly initialised model of the architecture that a config section describes.

    Raises InputError as `configuration` does.
    """
    described = configuration(
        section,
        config_key,
        vocabulary_size=vocabulary_size,
        block_size=block_size,
        end_of_text=end_of_text,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(described, dtype=torch.float32)


def configuration(
    section: dict,
    config_key: str = "models.*.architecture",
    *,
    vocabulary_size: int,
    block_size: int,
    end_of_text: int,
) -> PretrainedConfig:
    """Return the `transformers` configuration that a config section describes.

    section: what `read_architecture` resolves. Raises InputError for an unknown architecture, type
    or setting, a vocabulary smaller than the tokenizer's, or a block longer than the positions.
    """
    settings = {"vocab_size": vocabulary_size, **read_architecture(section, config_key)}
    if settings["vocab_size"] < vocabulary_size:
        raise InputError(
            f"config key {config_key}.vocab_size: {settings['vocab_size']} is smaller than the "
            f"tokenizer's vocabulary of {vocabulary_size}; leave it out to follow the tokenizer"
        )
    model_type = settings.pop("model_type", None)
    if longest_block(settings) is None:
        settings["max_position_embeddings"] = block_size
    settings |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    try:
        standard = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise InputError(
            f"config key {config_key}.model_type: {model_type!r} is not an architecture that "
            "transformers knows"
        ) from error
    known = {*standard.to_dict(), *standard.attribute_map, *ROTARY_SETTINGS, "name", "file"}
    unknown = sorted(set(section) - known)
    if unknown:
        raise InputError(f"config key {config_key}: {model_type} has no setting {unknown[0]}")
    try:
        config = AutoConfig.for_model(model_type, **settings)
    except Exception as error:
        raise InputError(
            f"config key {config_key}: {model_type} cannot have these settings "
            f"({first_line(error)})"
        ) from error
    require_positions(config, block_size)
    return config


def first_line(error: BaseException) -> str:
    """Return what an error of a library says first, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, KeyError):
        return f"nothing is named {error}"
    if len(lines) > 1 and lines[0].endswith(":"):  # a heading, and the name of another error
        return re.sub(r"^\w+Error: ", "", lines[1]).rstrip(".")
    return lines[0].rstrip(".") if lines else type(error).__name__


def compute_device() -> torch.device:
    """Return the GPU where there is one, and the CPU elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def require_positions(config, block_size: int) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < block_size:
        raise InputError(
            f"config key corpus.block_size: {block_size} is longer than the {positions} positions "
            f"of the {config.model_type} model"
        )


def load_model(
    directory: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    attention: str | None = None,
    verify: bool = True,
) -> PreTrainedModel:
    """Load a model directory, offline, in evaluation mode, its weights checked against its record.

    attention: a `transformers` implementation; None takes the fastest that the family supports.

    Raises InputError where the directory is missing, damaged, or was changed after training, and
    where its tensors are not those of its model (`load_whole`).
    """
    directory = local_directory(directory, "models")
    if verify:
        verify_directory(directory, "*.json")
        verified_weights_sha256(directory)
    model = load_whole(AutoModelForCausalLM, directory, dtype=dtype, attn_implementation=attention)
    return model.eval()


def load_whole(auto: Any, directory: str | Path, **options: Any) -> Any:
    """Return a model of which no tensor is made up and none is passed over.

    auto: an `AutoModel` class of `transformers`. options: of its `from_pretrained`;
    `device_map="meta"` reads the names and shapes of the tensors alone.
    Names of tensors lose what wrappers put before them. Raises InputError, one line that names
    tensors, where the directory lacks some (which `transformers` draws at random), holds others,
    or holds some of another shape.
    """
    try:
        model, found = auto.from_pretrained(
            directory,
            output_loading_info=True,
            key_mapping=WRAPPERS,
            # Reported below, as a fault.
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except Exception as error:  # of several libraries
        raise InputError(
            f"{directory}: cannot be loaded as a model ({first_line(error)})"
        ) from error
    kind = type(model).__name__
    for names, fault in (
        (found["missing_keys"], f"lacks tensors of {kind}, which would be drawn at random"),
        (
            {name for name, *_ in found["mismatched_keys"]},
            f"holds tensors of another shape than config.json gives {kind}",
        ),
        (found["unexpected_keys"], f"holds tensors that {kind} does not have"),
    ):
        if names:
            raise InputError(
                f"{directory}: {fault}: {some_names(names)}; give the directory of a whole model, "
                "with the config.json that it was saved with"
            )
    return model


def require_finite(model: nn.Module, directory: str | Path) -> None:
    """Refuse weights that are infinite or no numbers. Raises InputError with their names."""
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    broken = [
        name for name, tensor in tensors if tensor.is_floating_point() and not _is_finite(tensor)
    ]
    if broken:
        advice = (
            "lower the learning rate of the training that made them"
            if is_result(directory)
            else "the training that made them diverged, or the files are damaged: give others"
        )
        raise InputError(
            f"{directory}: weights that are not finite: {some_names(broken)}; {advice}"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    # The largest and the smallest tell, without a copy of the tensor.
    return tensor.numel() == 0 or bool(torch.isfinite(torch.stack(tensor.aminmax())).all())


def some_names(names: Iterable[str]) -> str:
    """Return the first names of tensors, and how many there are beside them."""
    names = sorted(names)
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: str | Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> str:
    """Write a model directory: safetensors in one file, configuration, tokenizer, checksums.

    weights: in place of the model's own, where others are to be kept. Returns their hash.
    """
    model.save_pretrained(directory, state_dict=weights, max_shard_size="1TB")
    tokenizer.save_pretrained(directory)
    record_directory(directory)
    return _weights_sha256(directory, recorded_sha256)


def weights_sha256(directory: str | Path) -> str:
    """Return the hash of a model directory's weights: SHA-256 over its safetensors files in order.

    Raises InputError where the directory holds no safetensors file.
    """
    return _weights_sha256(directory, file_sha256)


def _weights_sha256(directory: str | Path, sha256_of: Callable[[Path], str]) -> str:
    paths = sorted(Path(directory).glob("*.safetensors"))
    if not paths:
        raise InputError(f"{directory}: no .safetensors file; only safetensors weights are loaded")
    checksums = [sha256_of(path) for path in paths]
    return checksums[0] if len(checksums) == 1 else joined_sha256(checksums)


def require_vocabulary(directory: str | Path, rows: int, tokenizer) -> None:
    """Refuse a model directory whose tokens are not those of `tokenizer`.

    rows: the size of the model's vocabulary. Where the directory holds a tokenizer, the two
    vocabularies have to be equal token by token; where it holds none, their sizes, less padding.
    """
    directory = Path(directory)
    size = len(tokenizer)
    if (directory / "tokenizer.json").is_file():
        same = load_tokenizer(directory).get_vocab() == tokenizer.get_vocab() and size <= rows
    else:
        same = size <= rows < size + LARGEST_PADDING
    if not same:
        raise InputError(
            f"{directory}: its vocabulary of {rows} is not that of the tokenizer, {size} tokens; "
            "give the model its own tokenizer, by `path`"
        )


def verified_weights_sha256(directory: str | Path) -> str:
    """Return the hash of the weights, compared with what is recorded, in so far as something is.

    Raises InputError where they are damaged, or are not those of the training record.
    """
    found = _weights_sha256(directory, verified_sha256)
    record = Path(directory) / TRAINING_RECORD
    if record.exists() and (recorded := read_json(record)["weights_sha256"]) != found:
        raise InputError(
            f"{directory}/model.safetensors: checksum {found[:12]} is not {recorded[:12]}, that of "
            f"{TRAINING_RECORD}; the weights were changed after training: "
            f"{remedy(directory, 'the file')}"
        )
    return found


def require_trained(directory: str | Path) -> None:
    """Refuse randomly initialised weights: their influence means nothing.

    The training record tells, where there is one; else the weights themselves.
    """
    path = Path(directory) / TRAINING_RECORD
    if path.exists():
        reason = "0 steps" if read_json(path)["steps"] == 0 else None
    else:
        reason = "each norm and bias has one value" if _is_as_initialised(directory) else None
    if reason:
        raise InputError(
            f"{directory}: the weights were never trained ({reason}), so influence means nothing; "
            "set influence.allow_untrained: true to go on all the same"
        )


def _is_as_initialised(directory: str | Path) -> bool:
    """Whether each vector among the weights has one value, and some weight is a vector.

    Gains of norms begin as ones (or zeros, added to one) and biases as zeros in every family;
    one step of training moves them, each element its own way.
    """
    some_vector = False
    for path in Path(directory).glob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if len(weights.get_slice(name).get_shape()) == 1:
                    vector = weights.get_tensor(name)
                    if (vector != vector[0]).any():
                        return False
                    some_vector |= len(vector) > 1
    return some_vector


class HiddenStates(nn.Module):
    """The model without its output head, and the head, so that logits can be made in chunks.

    `head` is None where the family does more to its logits than one linear layer (soft caps,
    scaling); `hidden_states` then returns the logits themselves.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.head = model.get_output_embeddings()
        if self.head is not None and not self._head_is_all():
            self.head = None

    @torch.no_grad()
    def _head_is_all(self) -> bool:
        if self.model.base_model is self.model:
            return False
        tokens = torch.arange(4, device=self.model.device).unsqueeze(0)
        tokens = tokens % self.model.config.vocab_size
        hidden = self.model.base_model(input_ids=tokens, use_cache=False)
        seen = []

        def amplify(_head, arguments, output):
            # A soft cap leaves small logits almost as they are; large ones it cannot leave so.
            seen.append((arguments[0], 1000 * output))
            return seen[-1][1]

        hook = self.head.register_forward_hook(amplify)
        try:
            logits = self.model(input_ids=tokens, use_cache=False).logits
        finally:
            hook.remove()
        if len(seen) != 1 or not hasattr(hidden, "last_hidden_state"):
            return False
        inputs, outputs = seen[0]
        return torch.equal(inputs, hidden.last_hidden_state) and torch.equal(
            outputs.to(logits.dtype), logits
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map tokens (blocks, T) to hidden states (blocks, T, width), or to logits."""
        if self.head is None:
            return self.model(input_ids=tokens, use_cache=False).logits
        return self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states, float32 or wider: (…, vocabulary)."""
        return at_least_float32(hidden if self.head is None else self.head(hidden))


def token_losses(
    body: HiddenStates, tokens: torch.Tensor, *, logits_budget_bytes: int = 2**26
) -> torch.Tensor:
    """Return L_ij = -log p(token j given those before it), (blocks, T); column 0 is 0.

    tokens: int64 (blocks, T). Losses are float32, or float64 where the model is. The output head
    runs over chunks of positions whose float32 logits stay within `logits_budget_bytes`, unless the
    model makes its own logits; under autograd each chunk is still kept for the backward.
    """
    hidden = body(tokens)[:, :-1]
    labels = tokens[:, 1:]
    flat_hidden = hidden.reshape(-1, hidden.shape[-1])
    flat_labels = labels.reshape(-1)
    vocabulary = body.model.config.vocab_size
    chunk = max(1, logits_budget_bytes // (4 * vocabulary))
    losses = [
        _cross_entropy(body.head, part, part_labels)
        for part, part_labels in zip(
            flat_hidden.split(chunk), flat_labels.split(chunk), strict=True
        )
    ]
    per_label = torch.cat(losses).view(labels.shape)
    return torch.nn.functional.pad(per_label, (1, 0))


def _cross_entropy(head: nn.Module | None, hidden: torch.Tensor, labels: torch.Tensor):
    logits = hidden if head is None else head(hidden)
    return torch.nn.functional.cross_entropy(at_least_float32(logits), labels, reduction="none")
