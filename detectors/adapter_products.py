"""Detectors on what low-rank adapters change: the products B A instead of the factors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.nested import DetectorSpec, make, within
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.geometry.low_rank import product_gram, vectors_of
from fedguard.geometry.updates import Updates
from fedguard.training.places import DOWN, UP, places

#: The detectors that depend on the inner products of one round alone.
FIT = ("krum", "dnc", "norm_bound", "foolsgold")
INNER: DetectorSpec = {"name": "krum", "select": "m_krum"}


class AdapterProducts(Detector):
    """Another detector's scores, on ΔW_i = s (B_i A_i − B_0 A_0) of each adapted layer instead of (B_i, A_i).

    B_0, A_0 are the global adapters and s is their scale, alpha / r. ΔW has many factors, (B R⁻¹)(R A), so
    distances of factors say little about it. ΔW is never formed: ΔW_i = s [B_i − B_0, B_0] [A_i; A_i − A_0]
    has rank 2r at most, and ⟨P_i Q_i, P_j Q_j⟩ = Σ (P_iᵀ P_j) ∘ (Q_i Q_jᵀ). Of all other parameters, such as
    the layer for the classes, the inner products of the updates are added; a model without adapters has only
    these. The detector sees n vectors of n numbers with these inner products, and neither the model nor the
    global parameters.

    Args:
        detector: the one that scores: krum, dnc (which then samples no coordinates), norm_bound, or foolsgold
            with ``memory: false``. Others use coordinates or past rounds, too, which these vectors do not
            keep.
        layers: only the last so many adapted layers and the parameters behind them; all if None.

    Raises:
        ParameterError: another detector, or no layers.
        NeedError: ``layers`` is given, and the model has no adapters.

    Source: FedGuard; the adapters: Hu et al., LoRA, ICLR 2022, §4.1.

    Example:
        >>> from fedguard import make_detector
        >>> make_detector("adapter_products", detector="norm_bound", layers=4)
        AdapterProducts(detector='norm_bound', layers=4)
    """

    card = Card("adapter_products", "another detector on the products of low-rank adapters", "FedGuard")
    needs = frozenset({"model", "global_params"})

    def __init__(self, detector: DetectorSpec = INNER, layers: int | None = None) -> None:
        inner = make(detector, "detectors", "adapter_products: detector")
        if inner.name not in FIT or getattr(inner, "memory", False):
            raise ParameterError(
                f"adapter_products: {inner.name} uses more than the inner products of a round; use "
                f"{', '.join(FIT)} (with memory: false)"
            )
        if getattr(inner, "features", "all") != "all":
            raise ParameterError("adapter_products: features is not 'all'; use `layers` for the last layers")
        if layers is not None and layers < 1:
            raise ParameterError(f"adapter_products: layers is {layers}; use at least 1, or None for all")
        self.members: dict[str, Detector] = {inner.name: inner}
        self.layers = layers
        self.gives_weights = inner.gives_weights
        self.num_malicious = getattr(inner, "num_malicious", None)

    @property
    def _inner(self) -> Detector:
        (inner,) = self.members.values()
        return inner

    def min_clients(self) -> int:
        """The detector's own."""
        return self._inner.min_clients()

    def score(self, round: Round) -> Scores:
        """Score vectors with the inner products of the changes."""
        gram = adapter_gram(round, self.layers)
        bare = Round(
            Updates(vectors_of(gram)),
            round.client_ids,
            round.num_examples,
            round.index,
            num_steps=round.num_steps,
            server=None if round.server is None else round.with_server(model=None).server,
        )
        with within("adapter_products"):
            return self._inner(bare)


class Adapter(NamedTuple):
    """Where an adapted layer's factors lie in a flat vector: A (r, in), B (out, r), and their scale."""

    down: slice
    up: slice
    rank: int
    scale: float


def adapter_gram(round: Round, layers: int | None = None) -> Tensor:
    """(n, n) float64 inner products of what clients change: of products for adapters, else of updates.

    Args:
        round: with model and global parameters.
        layers: only the last so many adapted layers and the parameters behind them.

    Raises:
        NeedError: the round lacks the model or the global parameters, or no layer is adapted.
        RoundError: the updates are not of this model.
    """
    server, start, updates = round.server, round.global_params, round.updates.matrix
    if server is None or server.model is None or start is None:
        raise NeedError("adapter_products needs model and global_params: give the round both")
    adapters, others = _layout(server.model, updates.shape[1])
    if layers is not None and not adapters:
        raise NeedError("adapter_products: `layers` needs a model with adapters: set its `lora`")
    kept = adapters if layers is None else adapters[-layers:]
    first = 0 if layers is None else min(min(a.down.start, a.up.start) for a in kept)
    gram = torch.zeros((round.n, round.n), dtype=torch.float64, device=updates.device)
    for adapter in kept:
        gram += adapter.scale**2 * _of_adapter(adapter, updates, start.to(updates.device))
    for part in others:
        if part.start >= first:
            gram += Updates(updates[:, part]).inner_products
    return gram


def _of_adapter(adapter: Adapter, updates: Tensor, start: Tensor) -> Tensor:
    """The inner products of B_i A_i − B_0 A_0 = [B_i − B_0, B_0] [A_i; A_i − A_0]."""
    n, r = len(updates), adapter.rank
    moved_up = updates[:, adapter.up].double().reshape(n, -1, r)
    up = start[adapter.up].double().view(-1, r).expand_as(moved_up)
    moved_down = updates[:, adapter.down].double().reshape(n, r, -1)
    down = start[adapter.down].double().view(r, -1) + moved_down
    return product_gram(torch.cat([moved_up, up], 2), torch.cat([down, moved_down], 1))


def _layout(model: nn.Module, d: int) -> tuple[list[Adapter], list[slice]]:
    """The adapted layers of a model in its order, and all other parameters."""
    where = places(model, d)
    ups = {name.replace(UP, DOWN): name for name in where if UP in name}
    pairs = {name: ups[name] for name in where if DOWN in name and name in ups}
    adapters = [
        Adapter(where[down].span, where[up].span, where[down].shape[0], _scale(model, down))
        for down, up in pairs.items()
    ]
    factors = {*pairs, *pairs.values()}
    return adapters, [part.span for name, part in where.items() if name not in factors]


def _scale(model: nn.Module, name: str) -> float:
    """The scale alpha / r that an adapted layer of peft has; 1 for others."""
    layer, _, rest = name.partition(DOWN)
    scaling = getattr(model.get_submodule(layer), "scaling", None)
    return float(scaling.get(rest.partition(".")[0], 1.0)) if isinstance(scaling, dict) else 1.0
