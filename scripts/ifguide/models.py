"""Causal language models: built from an architecture, loaded from a directory, hashed, saved."""

import hashlib
import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ifguide.artifacts import file_sha256, read_json
from ifguide.errors import InputError
from ifguide.precision import at_least_float32

TRAINING_RECORD = "training.json"


def local_directory(path: str | Path, config_key: str) -> Path:
    """Return `path` where it is a directory; never let a missing path become a hub look-up."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"config key {config_key}: {path} is not a directory")
    return path


def load_tokenizer(directory: str | Path, config_key: str = "tokenizers"):
    """Load a tokenizer directory, offline."""
    return AutoTokenizer.from_pretrained(
        local_directory(directory, config_key), local_files_only=True, trust_remote_code=False
    )


def build_model(
    architecture: dict, *, vocabulary_size: int, block_size: int, end_of_text: int, seed: int
) -> PreTrainedModel:
    """Return a randomly initialised model of `architecture` (a `transformers` configuration).

    Raises InputError for an unknown model type or setting, or a block longer than the positions.
    """
    settings = {**architecture, "vocab_size": vocabulary_size}
    model_type = settings.pop("model_type", None)
    settings.setdefault("max_position_embeddings", block_size)
    settings |= {"bos_token_id": end_of_text, "eos_token_id": end_of_text}
    try:
        config = AutoConfig.for_model(model_type, **settings)
    except ValueError as error:
        raise InputError(
            f"config key models.*.architecture.model_type: {model_type!r} is not an architecture "
            "that transformers knows"
        ) from error
    unknown = sorted(set(settings) - set(config.to_dict()) - set(config.attribute_map))
    if unknown:
        raise InputError(
            f"config key models.*.architecture: {model_type} has no setting {', '.join(unknown)}"
        )
    require_positions(config, block_size)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


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
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    verify: bool = True,
) -> PreTrainedModel:
    """Load a model directory, offline, in evaluation mode, its weights checked against its record.

    attention: a `transformers` implementation; None takes the fastest that the family supports.

    Raises InputError where the directory is missing, damaged, or was changed after training.
    """
    directory = local_directory(directory, "models")
    if verify:
        verified_weights_sha256(directory)
    model = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=dtype,
        attn_implementation=attention,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def weights_sha256(directory: str | Path) -> str:
    """Return the hash of a model directory's weights: SHA-256 over its safetensors files in order.

    Raises InputError where the directory holds no safetensors file.
    """
    paths = sorted(Path(directory).glob("*.safetensors"))
    if not paths:
        raise InputError(f"{directory}: no .safetensors file; only safetensors weights are loaded")
    if len(paths) == 1:
        return file_sha256(paths[0])
    return hashlib.sha256("".join(file_sha256(path) for path in paths).encode()).hexdigest()


def verified_weights_sha256(directory: str | Path) -> str:
    """Return the hash of the weights, having compared it with the training record, if there is one.

    Raises InputError where they are damaged or were changed after training.
    """
    found = weights_sha256(directory)
    record = Path(directory) / TRAINING_RECORD
    if record.exists() and (recorded := read_json(record)["weights_sha256"]) != found:
        raise InputError(
            f"{directory}/model.safetensors: checksum {found[:12]} is not the recorded "
            f"{recorded[:12]}; the weights are damaged or were changed after training: delete "
            "the file and run again"
        )
    return found


def require_trained(directory: str | Path) -> None:
    """Refuse randomly initialised weights: their influence means nothing."""
    path = Path(directory) / TRAINING_RECORD
    if path.exists() and read_json(path)["steps"] == 0:
        raise InputError(
            f"{directory}: the weights were never trained (0 steps), so influence means nothing; "
            "set influence.allow_untrained: true to go on all the same"
        )


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


def read_architecture(settings: dict, config_key: str) -> dict:
    """Return an architecture that the config spells out, or names by a configuration file."""
    if "file" not in settings:
        return settings
    path = Path(settings["file"])
    if not path.is_file():
        raise InputError(f"config key {config_key}.file: {path} does not exist")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    overrides = {key: value for key, value in settings.items() if key != "file"}
    return {**described, **overrides}
