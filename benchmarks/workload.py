"""What is measured: a random model of Pythia's architecture, random blocks, and one row a stage.

A row is a function that does its work once over all blocks. Rows of the peer do the same work with
kronfluence, on the same model, blocks, labels and batches.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ifguide.influence.ekfac import (
    Batch,
    Eigenbasis,
    LayerFactors,
    covariance_sums,
    eigenbases,
    eigenvalue_sums,
    layer_factors,
)
from ifguide.influence.factor_blocks import drawn_positions
from ifguide.influence.query_direction import QueryRecord, difference, mean_gradient, precondition
from ifguide.influence.token_scores import (
    backward_scorer,
    forward_mode_scorer,
    position_scorer,
    two_forward_scorer,
)
from ifguide.models.loading import HiddenStates, token_losses
from ifguide.models.tracked_layers import TrackedLayer, tracked_layers

LOGITS_BUDGET_BYTES = 2**26
RELATIVE_STEP = 1e-3
RELATIVE_DAMPING = 0.1


@dataclass(frozen=True)
class Size:
    """A model and what runs through it; tokens are counted in blocks of `length`."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    blocks: int
    batch: int
    queries: int

    def __str__(self) -> str:
        return f"{self.layers} layers × {self.width}, vocabulary {self.vocabulary:,}"


SIZES = {
    "smoke": Size(2, 32, 2, 257, 32, 4, 2, 2),
    "base": Size(6, 256, 4, 8192, 256, 32, 16, 32),
    "double": Size(6, 512, 8, 8192, 256, 32, 16, 32),
    "pythia-160m": Size(12, 768, 12, 50304, 2048, 32, 4, 32),
}
PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


class Workload:
    """One size on one device: model, tokens, and the results of the rows that ran."""

    def __init__(
        self, size: Size, *, device: str, precision: str, labels: str, one_row: bool = False
    ) -> None:
        self.one_row = one_row
        self.size, self.device, self.labels = size, torch.device(device), labels
        self.dtype = PRECISIONS[precision]
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        generator = torch.Generator().manual_seed(0)
        shape = (size.blocks, size.length)
        self.tokens = torch.randint(0, size.vocabulary, shape, generator=generator)
        self.tokens = self.tokens.to(self.device)
        self.results: dict[str, object] = {}
        self.model = self.new_model()
        self.layers, _ = tracked_layers(self.model)

    def new_model(self) -> PreTrainedModel:
        size = self.size
        config = AutoConfig.for_model(
            "gpt_neox",
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=4 * size.width,
            vocab_size=size.vocabulary,
            max_position_embeddings=size.length,
            rotary_pct=0.25,
        )
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        return model.to(self.device, self.dtype)

    @cached_property
    def direction(self) -> dict[str, torch.Tensor]:
        """A direction of the model's own scale: random, like the weights."""
        generator = torch.Generator().manual_seed(1)
        return {
            name: torch.randn(parameter.shape, generator=generator).to(parameter)
            for layer in self.layers
            for name, parameter in layer.named_parameters()
        }

    @cached_property
    def bases(self) -> dict[str, Eigenbasis]:
        """The eigenbases that the correction pass needs, made outside its time."""
        if "covariance" not in self.results:
            self.results["covariance"] = self.covariance()
        return eigenbases(self.results["covariance"])

    def factors(self) -> dict[str, LayerFactors]:
        return layer_factors(self.bases, self.results["eigenvalues"])

    def batches(self) -> Iterator[Batch]:
        for start in range(0, self.size.blocks, self.size.batch):
            tokens = self.tokens[start : start + self.size.batch]
            valid = torch.ones_like(tokens, dtype=torch.bool)
            yield Batch(tokens, valid, range(start, start + len(tokens)))

    def queries(self, seed: int) -> list[QueryRecord]:
        """Records of half a block, of which the second half is continuation."""
        half = self.size.length // 2
        shape = (self.size.queries, half)
        ids = np.random.default_rng(seed).integers(0, self.size.vocabulary, shape)
        return [QueryRecord(row, half // 2) for row in ids]

    # Rows

    def training(self) -> None:
        """Forward and backward pass with gradients of all weights, no optimiser."""
        for batch in self.batches():
            logits = self.model(batch.tokens, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.tokens[:, 1:].flatten()
            )
            loss.backward()
            self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward(self) -> None:
        """Every token's loss, without a graph, the logits in chunks."""
        body = HiddenStates(self.model)
        for batch in self.batches():
            token_losses(body, batch.tokens, logits_budget_bytes=LOGITS_BUDGET_BYTES)

    def covariance(self):
        return covariance_sums(self.model, self.layers, self.batches(), labels=self.labels)

    def covariance_quarter(self):
        def sampled(batch: Batch) -> Batch:
            drawn = drawn_positions(batch.indices, self.size.length, 0.25, seed=0)
            return replace(batch, drawn=drawn.to(self.device))

        batches = map(sampled, self.batches())
        return covariance_sums(self.model, self.layers, batches, labels=self.labels)

    def eigenvalues(self):
        return eigenvalue_sums(
            self.model, self.layers, self.bases, self.batches(), labels=self.labels
        )

    def two_forward(self) -> torch.Tensor:
        return self.scored(self.two_forward_score)

    @cached_property
    def two_forward_score(self) -> Callable:
        """Made once, as a scoring job does. It uses up its model and its direction."""
        model, direction = self.model, self.direction
        if not self.one_row:
            model, direction = self.new_model(), {n: v.clone() for n, v in direction.items()}
        return two_forward_scorer(
            model,
            direction,
            relative_step=RELATIVE_STEP,
            logits_budget_bytes=LOGITS_BUDGET_BYTES,
        )

    def forward_mode(self) -> torch.Tensor:
        return self.scored(
            forward_mode_scorer(self.model, self.direction, logits_budget_bytes=LOGITS_BUDGET_BYTES)
        )

    def backward(self) -> torch.Tensor:
        """One backward pass a token, over the first block only."""
        score = backward_scorer(self.model, self.direction, logits_budget_bytes=LOGITS_BUDGET_BYTES)
        found = score(self.tokens[:1])
        self.model.requires_grad_(True)
        return found

    def position(self) -> torch.Tensor:
        score = position_scorer(self.model, self.layers, self.direction)
        return torch.cat([score(batch.tokens, batch.valid) for batch in self.batches()])

    def query_direction(self) -> dict[str, torch.Tensor]:
        """Toxic and safe gradients, their difference, and its product with the inverse Hessian."""
        means = [mean_gradient(self.model, self.layers, self.queries(seed)) for seed in (0, 1)]
        return precondition(
            difference(*means),
            self.layers,
            self.factors(),
            relative_damping=RELATIVE_DAMPING,
            power=1.0,
        )

    def scored(self, score: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        return torch.cat([score(batch.tokens) for batch in self.batches()])


class Peer:
    """kronfluence on the same model, blocks, labels and batches. Needs `kronfluence` installed."""

    def __init__(self, workload: Workload) -> None:
        from kronfluence.analyzer import Analyzer, prepare_model
        from kronfluence.task import Task

        names = [layer.name for layer in workload.layers]

        class LanguageModelling(Task):
            def compute_train_loss(self, batch, model, sample=False):
                logits = model(input_ids=batch["tokens"], use_cache=False).logits[:, :-1].float()
                logits, labels = logits.flatten(0, 1), batch["tokens"][:, 1:].flatten()
                if sample:
                    with torch.no_grad():
                        labels = torch.multinomial(logits.softmax(-1), 1).flatten()
                return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

            def compute_measurement(self, batch, model):
                return self.compute_train_loss(batch, model)

            def get_influence_tracked_modules(self):
                return names

        self.workload = workload
        self.folder = tempfile.TemporaryDirectory()
        task = LanguageModelling()
        self.analyzer = Analyzer(
            "peer",
            model=prepare_model(workload.new_model(), task),
            task=task,
            cpu=workload.device.type == "cpu",
            output_dir=self.folder.name,
            disable_tqdm=True,
        )
        self.train = Blocks(workload.tokens.cpu())
        generator = torch.Generator().manual_seed(2)
        shape = (workload.size.queries, workload.size.length)
        self.queries = torch.randint(0, workload.size.vocabulary, shape, generator=generator)

    def _factor_arguments(self):
        from kronfluence.arguments import FactorArguments

        return FactorArguments(
            strategy="ekfac", use_empirical_fisher=self.workload.labels == "true"
        )

    def covariance(self):
        self.analyzer.fit_covariance_matrices(
            "factors",
            self.train,
            per_device_batch_size=self.workload.size.batch,
            factor_args=self._factor_arguments(),
            overwrite_output_dir=True,
        )
        return self.analyzer.load_covariance_matrices("factors")

    def decompose(self) -> None:
        self.analyzer.perform_eigendecomposition(
            "factors", factor_args=self._factor_arguments(), overwrite_output_dir=True
        )

    def eigenvalues(self):
        self.analyzer.fit_lambda_matrices(
            "factors",
            self.train,
            per_device_batch_size=self.workload.size.batch,
            factor_args=self._factor_arguments(),
            overwrite_output_dir=True,
        )
        return self.analyzer.load_lambda_matrices("factors")

    def position(self) -> torch.Tensor:
        """Scores of every token for every query: (queries, blocks, T)."""
        from kronfluence.arguments import ScoreArguments

        self.analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            Blocks(self.queries),
            self.train,
            per_device_query_batch_size=self.workload.size.queries,
            per_device_train_batch_size=self.workload.size.batch,
            score_args=ScoreArguments(damping_factor=None, compute_per_token_scores=True),
            overwrite_output_dir=True,
        )
        return self.analyzer.load_pairwise_scores("scores")["all_modules"]

    def factors(self) -> dict[str, LayerFactors]:
        """The peer's own factors, so that scores can be compared with the same ones."""
        bases = self.analyzer.load_eigendecomposition("factors")
        eigenvalues = self.analyzer.load_lambda_matrices("factors")
        return {
            layer.name: LayerFactors(
                Eigenbasis(
                    bases["activation_eigenvectors"][layer.name],
                    bases["gradient_eigenvectors"][layer.name],
                ),
                eigenvalues["lambda_matrix"][layer.name]
                / eigenvalues["num_lambda_processed"][layer.name],
            )
            for layer in self.workload.layers
        }


class Blocks(torch.utils.data.Dataset):
    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"tokens": self.tokens[index]}


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ‖found - expected‖ / ‖expected‖ in float64."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())


def agreement(workload: Workload, peer: Peer | None) -> dict[str, float]:
    """Return how far results differ that should be equal, by what they are."""
    results = workload.results
    found: dict[str, float] = {}
    if {"two_forward", "forward_mode"} <= results.keys():
        found["`loss` scores, two forward passes against forward mode"] = relative_difference(
            results["two_forward"], results["forward_mode"]
        )
    if {"backward", "forward_mode"} <= results.keys():
        found["`loss` scores, one backward pass a token against forward mode"] = (
            relative_difference(results["backward"], results["forward_mode"][:1])
        )
    if {"position", "forward_mode"} <= results.keys():
        found["block sums of `position` scores against `loss` scores"] = relative_difference(
            results["position"].sum(1), results["forward_mode"].sum(1)
        )
    if peer is None or workload.labels != "true":
        return found
    if {"peer covariance", "covariance"} <= results.keys():
        theirs, ours = results["peer covariance"], results["covariance"]
        for kind in ("activation", "gradient"):
            found[f"{kind} covariances against the peer's, largest of all layers"] = max(
                relative_difference(
                    ours[f"{layer.name}.{kind}"] / ours["tokens"],
                    theirs[f"{kind}_covariance"][layer.name]
                    / theirs[f"num_{kind}_covariance_processed"][layer.name],
                )
                for layer in workload.layers
            )
    if "peer eigenvalues" in results:
        factors = peer.factors()
        bases = {name: factor.basis for name, factor in factors.items()}
        ours = eigenvalue_sums(
            workload.model, workload.layers, bases, workload.batches(), labels="true"
        )
        found["eigenvalues in the peer's bases against the peer's, largest of all layers"] = max(
            relative_difference(ours[name] / ours["blocks"], factor.eigenvalues)
            for name, factor in factors.items()
        )
        if "peer position" in results:
            found["`position` scores of the mean query against the mean of the peer's"] = (
                relative_difference(*position_scores_of_both(workload, peer, factors))
            )
    return found


def position_scores_of_both(
    workload: Workload, peer: Peer, factors: dict[str, LayerFactors]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both scores with the peer's factors; the peer's stand one place before the label."""
    records = [QueryRecord(row.numpy(), 1) for row in peer.queries]
    direction = precondition(
        mean_gradient(workload.model, workload.layers, records),
        workload.layers,
        factors,
        relative_damping=RELATIVE_DAMPING,
        power=1.0,
    )
    score = position_scorer(workload.model, workload.layers, direction)
    ours = torch.cat([score(batch.tokens, batch.valid) for batch in workload.batches()])
    return ours[:, 1:], workload.results["peer position"].mean(0)[:, :-1]


def tracked_parameters(layers: list[TrackedLayer]) -> int:
    return sum(parameter.numel() for layer in layers for _, parameter in layer.named_parameters())
