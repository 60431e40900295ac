"""AGSD: a cluster of updates whose models are biased on adversarial inputs, and clients with such a past."""

from __future__ import annotations

import copy
import warnings
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.history import History
from fedguard.core.restored import numbers, pairs
from fedguard.core.state import State
from fedguard.core.threads import single_thread
from fedguard.core.ties import above, tolerance
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import load_parameters, predict

from ._clusters import around_cut
from ._ranking import by_id

Table = NDArray[np.float64]
#: Decimals to which similarities and trust are rounded.
DIGITS = 9
#: Keeps the code's quotient of trust finite.
SMALL = 1e-4


def scaled(values: Table) -> Table:
    """Values from 0 (lowest) to 1 (highest); 1 throughout if they are all equal."""
    low, high = values.min(), values.max()
    result: Table = (values - low) / (high - low) if high > low else np.ones_like(values)
    return result


def similarities(updates: Updates) -> Table:
    """(n, n) cos(v_i − m, v_j − m) + cos(v_i, v_j), scaled to [0, 1]; v_i has the median length.

    m is the mean of all v, with the median length as well. A zero vector has the cosine 0 to all others.
    """
    norms = updates.norms.cpu().numpy()
    median = float(np.median(norms))
    factor = np.divide(median, norms, out=np.zeros_like(norms), where=norms > 0)
    inner = updates.inner_products.cpu().numpy() * np.outer(factor, factor)
    length = np.sqrt(max(float(inner.mean()), 0.0))
    reach = median / length if length > 0 else 0.0
    to_mean = reach * inner.mean(1)
    about = inner - to_mean[:, None] - to_mean[None] + (reach * length) ** 2
    return scaled((_cosines(about, median) + _cosines(inner, median)).round(DIGITS))


def trust_index(diversity: Table, confidence: Table) -> Table:
    """(n,) γ in [0, 1]: high for models whose predictions are diverse and not overconfident.

    γ₁ = softmax(diversity), γ₂ = softmax(−confidence), γ = γ₁ + e^{−range(γ₁) / (mean γ₁ − min γ₁)} γ₂,
    scaled to [0, 1].
    """
    first, second = _softmax(diversity), _softmax(-confidence)
    damping = np.exp((first.min() - first.max()) / (first.mean() - first.min() + SMALL))
    return scaled((first + damping * second).round(DIGITS))


def adversarial_inputs(
    model: nn.Module, vector: Tensor, data: LabeledData, start: Tensor, epsilon: float
) -> Tensor:
    """Start + ε sgn ∇, one step that raises the loss on the labels and makes predictions alike.

    The objective is the mean over samples of two terms, each scaled to [0, 1] over the samples: the
    cross-entropy, and minus the mean deviation of a sample's logits from those of all samples. ε is in units
    of the range of the data's inputs; the result is clipped to that range.
    """
    own = copy.deepcopy(model).eval()
    load_parameters(own, vector)
    inputs = start.clone().requires_grad_(True)
    logits = own(inputs)
    losses = -F.cross_entropy(logits, data.labels, reduction="none")
    apart = (logits - logits.mean(0, keepdim=True)).abs().mean(1)
    (slope,) = torch.autograd.grad((_unit(losses) + _unit(apart)).mean(), inputs)
    low, high = data.inputs.min(), data.inputs.max()
    moved = start - epsilon * (high - low) * slope.sign()
    return moved.clamp(low, high)


class AGSD(Detector):
    """Suspects: clients outside the cluster with the highest mean trust index γ, or with a trust below 0.

    *Clusters*: two, by spectral clustering with the affinity of ``similarities``. *Trust index*: on
    ``samples`` inputs that are made adversarial for the mean of all local models (``adversarial_inputs``),
    each client's model has a diversity (the standard deviation over the samples of each predicted class's
    indicator, mean over classes) and a confidence (the largest of the mean probabilities of the classes);
    γ is ``trust_index`` of both. *Trust*: each round adds γ_i to a client of the trusted cluster, and takes
    1 − γ_i from a client of the other. Trust starts at 0 and is kept while a client is absent. **One of the
    two clusters always is suspected**, whether somebody attacks or not.

    The score of suspects is above 1; scores grow with 1 − γ. The method then brings the accepted updates to
    their median norm and adds little noise: add the stage ``clip_and_noise`` (which does not lengthen them).

    What was read is silent or contradicts itself, and what FedGuard does: the paper speaks of perturbed
    held-out samples, the code perturbs uniform noise of 5 % of their range and takes their labels only;
    ``start`` chooses. The code clips inputs to [0, 1]; here to the range of the samples. A model with
    predictions that are not finite counts as uniform and certain (the code's signs cancel into the opposite).
    Three clients are needed for two clusters; of fewer, and of clients that all have the same update or trust
    index, only those with a trust below 0 are suspected. A zero update is similar to none.

    Args:
        samples: how many validation samples are used, the same in all rounds; 50.
        epsilon: the size of the perturbation in units of the range of the inputs; 0.3.
        start: "noise" as in the code, "data" as the paper says.

    Raises:
        ParameterError: a parameter out of range.

    Source: Ali et al., Adversarially Guided Stateful Defense, ACSAC 2024 (arXiv 2410.11205). Read: the
    abstract, and the authors' ``agsd_id.py``, ``agsd_attack.py``, ``fgsm.py`` and ``server_config.py``.

    Example:
        >>> from fedguard import make_detector
        >>> make_detector("agsd", samples=20)
        AGSD(samples=20)
    """

    card = Card(
        "agsd",
        "bias of the local models on adversarial inputs, remembered",
        "Ali et al., AGSD, ACSAC 2024",
    )
    tasks = frozenset({"classification"})
    makes_inputs = True
    needs = frozenset({"model", "validation", "global_params"})
    check_with = MappingProxyType({"samples": 20})
    exempt = MappingProxyType(
        {
            "planted attack on top": "a model of noise can predict many classes unsurely, which is what this "
            "method trusts"
        }
    )

    def __init__(
        self, samples: int = 50, epsilon: float = 0.3, start: Literal["noise", "data"] = "noise"
    ) -> None:
        if samples < 1:
            raise ParameterError(f"agsd: samples is {samples}; use at least 1")
        if not 0 < epsilon < float("inf"):
            raise ParameterError(f"agsd: epsilon is {epsilon}; use a share of the inputs' range, say 0.3")
        if start not in ("noise", "data"):
            raise ParameterError(f"agsd: start is {start!r}; use 'noise' or 'data'")
        self.samples = samples
        self.epsilon = epsilon
        self.start = start
        self._trust: History[list[float]] = History()

    def score(self, round: Round) -> Scores:
        """Cluster, compute the trust index, and take the past into account."""
        order = np.array(by_id(round.client_ids))
        gamma, trusted = np.ones(round.n), np.ones(round.n, dtype=bool)
        found = trust_index(*self._behavior(round, order))
        gamma[order] = found
        trusted[order] = self._trusted(round.updates.take(order), found)
        trust = np.array([self._trust.get(client, [0.0])[0] for client in round.client_ids])
        if not trusted.all():
            trust = trust + np.where(trusted, gamma, gamma - 1)
        suspects = ~trusted | above(0.0, trust, tolerance(round.n, round.updates.d, DIGITS), scale=1.0)
        return Scores(
            around_cut(1 - gamma, suspects),
            suspects,
            "in the cluster that is less trusted on adversarial inputs, now or before",
            memory={client: [float(value)] for client, value in zip(round.client_ids, trust, strict=True)},
        )

    def _trusted(self, updates: Updates, gamma: Table) -> NDArray[np.bool_]:
        """(n,) True in the cluster with the higher mean trust index; clients in the order of their ids."""
        affinity = similarities(updates)
        everybody = np.ones(updates.n, dtype=bool)
        if updates.n < 3 or np.ptp(affinity) == 0 or np.ptp(gamma) == 0:
            return everybody
        from sklearn.cluster import SpectralClustering  # a slow import

        with warnings.catch_warnings(), single_thread():
            warnings.simplefilter("ignore", UserWarning)  # clusters without any similarity are no fault
            labels = SpectralClustering(2, affinity="precomputed", random_state=0).fit(affinity).labels_
        first: NDArray[np.bool_] = labels == labels[0]
        if first.all():
            return everybody
        second_is_better = above(gamma[~first].mean(), gamma[first].mean(), tolerance(updates.n), scale=1.0)
        return ~first if second_is_better else first

    def _behavior(self, round: Round, order: NDArray[np.intp]) -> tuple[Table, Table]:
        """(n,) diversity and (n,) confidence of the local models in the order of the clients' ids."""
        server, base = round.server, round.global_params
        if server is None or server.model is None or server.validation is None or base is None:
            raise NeedError("agsd needs model, validation and global_params")
        draw = server.generator("agsd")
        held = server.validation
        which = torch.randperm(len(held.labels), generator=draw)[: self.samples]
        data = LabeledData(held.inputs[which].float(), held.labels[which])
        spread = data.inputs.max() - data.inputs.min()
        noise = (0.1 * torch.rand(data.inputs.shape, generator=draw) - 0.05).to(spread.device) * spread
        start = noise if self.start == "noise" else data.inputs
        rows = [round.updates.row(int(i)).cpu() for i in order]
        with single_thread():
            mean = base.cpu() + torch.stack(rows).double().mean(0).float()
            inputs = adversarial_inputs(server.model, mean, data, start, self.epsilon)
            outputs = [predict(server.model, base.cpu() + row, inputs).cpu() for row in rows]
        measured = np.array([_diversity_and_confidence(logits) for logits in outputs])
        return measured[:, 0], measured[:, 1]

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the trust of this round's clients."""
        self._trust.remember(scores.memory or {}, seen=round.client_ids)

    def state_dict(self) -> State:
        """The trust of each client."""
        return {"trust": [[client, list(value)] for client, value in self._trust.items()]}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._trust = History((client, numbers(value, 1)) for client, value in pairs(state["trust"]))


def _diversity_and_confidence(logits: Tensor) -> tuple[float, float]:
    if not logits.isfinite().all():
        return -1.0, 1.0
    chosen = F.one_hot(logits.argmax(1), logits.shape[1]).double()
    return (
        float(chosen.std(0, unbiased=False).mean()),
        round(float(logits.double().softmax(1).mean(0).max()), 6),
    )


def _cosines(inner: Table, size: float) -> Table:
    """(n, n) cosines from inner products; 0 for vectors that are zero up to rounding."""
    squares = np.diag(inner).clip(min=0)
    lengths = np.sqrt(np.where(squares > (1e-6 * size) ** 2, squares, 0))
    scale = np.outer(lengths, lengths)
    cosines: Table = np.divide(inner, scale, out=np.zeros_like(inner), where=scale > 0).clip(-1, 1)
    return cosines


def _softmax(values: Table) -> Table:
    powers = np.exp(values - values.max())
    shares: Table = powers / powers.sum()
    return shares


def _unit(values: Tensor) -> Tensor:
    """``scaled`` for tensors with a gradient; the code's quotient by the maximum if all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values / high if high != 0 else values
