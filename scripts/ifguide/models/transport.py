"""Affine maps that carry activations on toxic text to those on other text, dimension by dimension.

Sources s and targets t are means over tokens of what a norm gives: s of toxic texts, t of as many
others.
On a line, the optimal transport of one sample to another of the same size takes the i-th smallest
to the i-th smallest.

Lin-AcT (Rodriguez et al., 2024, arXiv 2410.23054), one norm after another: the affine map nearest
to that transport,

    w, b = argmin Σ_i ( w s_(i) + b − t_(i) )²  =  cov(s_( ), t_( )) / var(s_( )),  t̄ − w s̄

LinEAS (Rodriguez et al., 2025, arXiv 2503.10679), all norms at once, the sources computed through
all maps and the targets through none:

    C = Σ_norms Σ_dimensions 1/n Σ_i ( T(s)_(i) − t_(i) )²

by gradient descent, after each step of which w − 1 and b are thresholded for sparsity.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ifguide.data.labelled_texts import Texts
from ifguide.errors import InputError
from ifguide.models.activations import (
    Pool,
    TextBatch,
    encode_texts_for,
    pooled_mean,
    pooled_over_texts,
    pooled_pass,
    text_batches,
)
from ifguide.models.norm_maps import AffineMap, NormSite, fold_maps, mapped, norm_sites
from ifguide.models.precision import widened

log = logging.getLogger(__name__)

# A descent that ends above this multiple of where it began goes on from the start at half the rate.
DIVERGED = 1.5
HALVINGS = 10
LOGGED_STEPS = 10


class Fit(Protocol):
    """Maps of all sites, from the encoded texts of either kind: as many toxic ones as others."""

    def __call__(
        self,
        model: PreTrainedModel,
        sites: Sequence[NormSite],
        toxic: Sequence[Sequence[int]],
        nontoxic: Sequence[Sequence[int]],
    ) -> dict[str, AffineMap]: ...


def transport(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    fit: Fit,
    *,
    max_length: int,
    strength: float,
) -> None:
    """Fit maps of all norms of the model, and fold them into its weights at a strength.

    Raises InputError where a family has no place for them.
    """
    toxic, nontoxic = (encode_texts_for(model, tokenizer, side, max_length) for side in texts)
    with widened(model):
        sites = norm_sites(model)
        log.info("%d norms, %d texts of each kind", len(sites), len(toxic))
        maps = fit(model, sites, toxic, nontoxic)
        fold_maps(model, sites, {name: own.at(strength) for name, own in maps.items()})


def mean_pools(sites: Sequence[NormSite]) -> dict[str, tuple[nn.Module, Pool]]:
    return {site.name: (site.module, pooled_mean) for site in sites}


def least_squares_map(
    source: torch.Tensor, target: torch.Tensor, *, shifts: bool = True
) -> AffineMap:
    """Return the affine map nearest to the transport of `source` to `target`: both (n, width).

    A dimension in which the sources are all the same is moved and not scaled. Without a shift,
    w = Σ s_(i) t_(i) / Σ s_(i)², and 1 where the sources are all zero.
    """
    source, target = source.double().sort(0).values, target.double().sort(0).values
    if not shifts:
        square = (source**2).sum(0)
        scale = torch.where(square > 0, (source * target).sum(0) / square, 1.0)
        return AffineMap(scale, torch.zeros_like(scale))
    source_mean, target_mean = source.mean(0), target.mean(0)
    centered = source - source_mean
    variance = (centered**2).mean(0)
    covariance = (centered * (target - target_mean)).mean(0)
    constant = variance.sqrt() <= torch.finfo(torch.float32).eps * source_mean.abs()
    scale = torch.where(constant, 1.0, covariance / variance)
    return AffineMap(scale, target_mean - scale * source_mean)


def fit_one_by_one(
    model: PreTrainedModel,
    sites: Sequence[NormSite],
    toxic: Sequence[Sequence[int]],
    nontoxic: Sequence[Sequence[int]],
    *,
    incremental: bool,
    batch_size: int = 32,
) -> dict[str, AffineMap]:
    """Return the maps of Lin-AcT of all sites, float64.

    toxic, nontoxic: as many encoded texts each (`activations.encode_after_end_of_text`).
    incremental: sources of a norm are computed with the maps of all norms before it.
    """
    targets = pooled_over_texts(model, nontoxic, mean_pools(sites), batch_size=batch_size)
    if not incremental:
        sources = pooled_over_texts(model, toxic, mean_pools(sites), batch_size=batch_size)
    maps: dict[str, AffineMap] = {}
    for site in sites:
        if incremental:
            with mapped(sites, maps):
                sources = pooled_over_texts(model, toxic, mean_pools([site]), batch_size=batch_size)
        maps[site.name] = least_squares_map(
            sources[site.name], targets[site.name], shifts=site.shifts
        )
    return maps


def transport_cost(
    responses: dict[str, torch.Tensor], sorted_targets: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return C: responses (n, width) by norm, in any order, and targets, sorted by dimension."""
    return torch.stack(
        [
            ((responses[name].sort(0).values - target) ** 2).mean(0).sum()
            for name, target in sorted_targets.items()
        ]
    ).sum()


def fit_jointly(
    model: PreTrainedModel,
    sites: Sequence[NormSite],
    toxic: Sequence[Sequence[int]],
    nontoxic: Sequence[Sequence[int]],
    *,
    steps: int,
    learning_rate: float,
    l1: float = 0.0,
    group: float = 0.0,
) -> dict[str, AffineMap]:
    """Return the maps of LinEAS of all sites.

    toxic, nontoxic: as many encoded texts each, which are read at once. l1, group: weights of the
    penalties on single entries of w − 1 and b, and on whole ones. A descent that diverges begins
    again at half the learning rate; raises InputError where none converges.
    """
    (sources,) = text_batches(toxic, batch_size=len(toxic), device=model.device)
    targets = pooled_over_texts(model, nontoxic, mean_pools(sites), batch_size=len(nontoxic))
    targets = {name: values.sort(0).values.to(model.device) for name, values in targets.items()}
    for halving in range(HALVINGS):
        rate = learning_rate / 2**halving
        maps = _descend(model, sites, sources, targets, steps, rate, l1, group)
        if maps is not None:
            return maps
        log.warning("the transport cost diverged at a learning rate of %g", rate)
    raise InputError(
        f"config key methods.*.*.learning_rate: the transport cost diverged at {learning_rate:g}, "
        f"and still at {rate:g}; give a lower one"
    )


def _descend(
    model: PreTrainedModel,
    sites: Sequence[NormSite],
    sources: TextBatch,
    targets: dict[str, torch.Tensor],
    steps: int,
    learning_rate: float,
    l1: float,
    group: float,
) -> dict[str, AffineMap] | None:
    """Return the maps after gradient descent, None where the cost grew or is no number."""
    maps = {site.name: AffineMap.identity(targets[site.name][0]) for site in sites}
    trained = [
        part.requires_grad_()
        for site in sites
        for part in (maps[site.name] if site.shifts else maps[site.name][:1])
    ]
    descent = torch.optim.SGD(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(descent, T_max=steps)
    pools = mean_pools(sites)
    first = None
    with mapped(sites, maps):
        for step in range(steps):
            cost = transport_cost(pooled_pass(model, sources, pools), targets)
            value = cost.item()
            first = value if first is None else first
            # Also where it is no number.
            if not value <= DIVERGED * first:
                return None
            if step % max(1, steps // LOGGED_STEPS) == 0:
                log.info("step %d: transport cost %.4g", step, value)
            # Of the maps alone: the model's own weights get none.
            for part, gradient in zip(trained, torch.autograd.grad(cost, trained), strict=True):
                part.grad = gradient
            rate = schedule.get_last_lr()[0]
            descent.step()
            schedule.step()
            threshold_maps(maps, rate * l1, rate * group)
    return {name: AffineMap(*(part.detach() for part in own)) for name, own in maps.items()}


@torch.no_grad()
def threshold_maps(maps: dict[str, AffineMap], entry: float, group: float) -> None:
    """Move w towards 1 and b towards 0, in place: the proximal step of both penalties.

    For each v of w − 1 and b, (width,):
    v ← sign(v) max(|v| − entry, 0), then v ← v max(1 − group √width / ‖v‖, 0).
    """
    if not entry and not group:
        return
    for scale, shift in maps.values():
        for part, origin in ((scale, 1.0), (shift, 0.0)):
            moved = part - origin
            moved = moved.sign() * (moved.abs() - entry).clamp(min=0)
            norm = moved.norm().clamp(min=torch.finfo(moved.dtype).tiny)
            moved *= (1 - group * len(moved) ** 0.5 / norm).clamp(min=0)
            part.copy_(origin + moved)
