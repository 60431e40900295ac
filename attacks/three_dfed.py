"""3DFed: a backdoor behind constraints, noise masks and decoys, tuned by what indicators report."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.attack import DataView, UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData, Samples
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError
from fedguard.core.state import State
from fedguard.training.local import train_client
from fedguard.training.parameters import flat_parameters, learned

from ._backdoor import SquareBackdoor
from ._checks import require_positive
from ._three_dfed_indicators import (
    coordinates,
    curvature,
    implanted,
    indicator_weight,
    output_layer,
    output_rows,
    quietest,
    read,
)
from ._three_dfed_masks import drawn_masks, optimized_masks
from ._three_dfed_training import backdoored, batches, decoy
from ._three_dfed_tuning import next_alphas, next_decoys, uniform

#: α of all groups, and the factor on the masks' noise, once the server is known to add noise.
NOISY_ALPHA, NOISY_STD = 0.1, 0.2


@dataclass(frozen=True)
class Plan:
    """What the colluders send in a round, prepared before it.

    Attributes:
        backdoor: (d,) the backdoor's update.
        places: (b, c) where the masks of the first b colluders lie in it.
        masks: (b, c) their values.
        groups: (b,) their groups.
        decoys: (k, d) what the last k colluders send.
        positions: (b + k,) each colluder's indicator; fewer if the layer has fewer weights.
    """

    backdoor: Tensor
    places: Tensor
    masks: Tensor
    groups: Tensor
    decoys: Tensor
    positions: Tensor

    def updates(self, count: int, factor: float) -> Tensor:
        """(count, d) the updates with their indicators; colluders beyond the plan send the backdoor alone."""
        masked = self.backdoor.repeat(len(self.masks), 1).scatter_add(1, self.places, self.masks)
        planned = torch.cat([masked, self.decoys])[:count]
        rows = torch.arange(min(len(planned), len(self.positions)))
        places = self.positions[: len(rows)]
        planned[rows, places] = implanted(planned[rows, places], factor)
        return torch.cat([planned, self.backdoor.repeat(count - len(planned), 1)])


@dataclass(frozen=True)
class Sent:
    """The indicators of the last attacked round.

    Attributes:
        positions: (i,) where they lie in the flat parameters.
        values: (i,) the update that each colluder sent there.
        before: (i,) the global model there, before the round.
        groups: (b,) the groups of the colluders that sent the backdoor; the others, i − b, sent decoys.
    """

    positions: Tensor
    values: Tensor
    before: Tensor
    groups: Tensor


class ThreeDFed(SquareBackdoor):
    """u_i = s·u + m_i, or a decoy, with one parameter that tells in the next round what became of it.

    Before every round the first malicious client reads the indicators of the last one and prepares what all
    send:

    - u: the update of a model trained from the global model w_g on
      (1 − c)/2 (ℓ(clean) + ℓ(stamped)) + c ‖w − w_g‖₂. s = max(1, min(‖h‖/‖u‖, ``max_scale``)), h the update
      of an honest client.
    - m_i: noise on ``neurons`` rows of the output layer, not the target's, the same for a group of
      ``group_size`` colluders. It starts from N(0, ``mask_std``²) with a group's sum 0, and is optimized to
      enlarge the change of these rows (weight α), to stay short (1 − α), and to cancel within the group.
    - decoys: the last k colluders send models trained on clean data in which one weight of the output layer
      moves away from the honest one, a weight in which h and s·u agree. They bend the principal components
      that a detector may look at. k starts from 0.
    - indicators: each colluder multiplies its update of one weight by ``indicator_scale`` (0 becomes 0.01).
      These are weights of the last convolution (or the last hidden linear layer) that u and h hardly move
      and on which the curvature Σ_j |∂²ℓ/∂w_i ∂w_j| is least.

    In the next round, the change of w_g there divided by what was sent is at most ``threshold`` if the update
    was rejected, at most 0.8 of the largest feedback if it was clipped, and otherwise it was accepted. α of
    each group and k follow from this: k grows by one if everything was rejected and falls with every decoy
    that was accepted; a group takes an α near those that were accepted, or a fresh one from U[alpha_min, 1].
    Feedback below −threshold or above 1 means that the server adds noise: from then on α = 0.1 and a fifth
    of the mask's noise, without feedback.

    Differences from the authors' code: decoys come from the colluders, at most half of them, not from further
    clients; a group that answers feedback is the one that sent the masks; all masks of a group step at once,
    and a group of one sends none; decoys move a weight of the output layer also for MNIST. Colluders train
    honestly themselves, without effect on what they send. The trigger is a white square in the bottom-right
    corner, added before normalization.

    As in the code, the server should give clients equal weights: otherwise a group's masks do not cancel in
    the mean, and a colluder with at most 0.8 of the largest colluder's weight reads as clipped. The constants
    of the masks are for output layers of about 500 inputs; with few inputs, masks cancel in part only.

    Args:
        target: the label that the trigger should cause; 8 in the authors' settings.
        patch: side of the square in pixels, all channels.
        epochs: passes over the data when the backdoor is trained; 15, with the lr, momentum and weight decay
            of local training.
        constraint: c, in [0, 1); 0.4.
        max_scale: the bound on s; 5.
        group_size: the colluders of a group; 2 for MNIST.
        neurons: rows with noise; 8 for MNIST, 5 for CIFAR-10.
        mask_std: 0.05 for MNIST, 0.01 for CIFAR-10.
        alpha_min: the lower bound of a fresh α, in [0, 1]; 0.
        candidates: per indicator, the weights that u and h move least; 10.
        indicator_scale: 10⁵.
        threshold: 10⁻⁴ for MNIST, 10⁻⁵ for CIFAR-10.

    Raises:
        ParameterError: a parameter out of range; in the first round, a model without an output layer that is
            linear, or without a layer for the indicators.

    Source: Li et al., 3DFed, IEEE S&P 2023: the idea, from the abstract; all else, from the authors'
    repository (haoyangliASTAPLE/3DFed: thrdfed.py, attack.py, loss_functions.py, components/, configs/).
    """

    card = Card(
        "three_dfed",
        "a constrained backdoor behind noise masks and decoys, tuned by indicators",
        "Li et al., 3DFed: Adaptive and Extensible Framework for Covert Backdoor Attack, IEEE S&P 2023",
    )
    check_with = MappingProxyType({"epochs": 2})

    def __init__(
        self,
        target: int = 8,
        patch: int = 3,
        epochs: int = 15,
        constraint: float = 0.4,
        max_scale: float = 5.0,
        group_size: int = 2,
        neurons: int = 8,
        mask_std: float = 0.05,
        alpha_min: float = 0.0,
        candidates: int = 10,
        indicator_scale: float = 1e5,
        threshold: float = 1e-4,
    ) -> None:
        super().__init__(target, None, 1.0, patch)
        counts = {"epochs": epochs, "group_size": group_size, "neurons": neurons, "candidates": candidates}
        for name, count in counts.items():
            if count < 1:
                raise ParameterError(f"three_dfed: {name} is {count}; use at least 1")
        positive = {"max_scale": max_scale, "mask_std": mask_std, "indicator_scale": indicator_scale}
        for name, value in {**positive, "threshold": threshold}.items():
            require_positive("three_dfed", name, value)
        if not 0 <= constraint < 1:
            raise ParameterError(f"three_dfed: constraint is {constraint}; use a weight in [0, 1)")
        if not 0 <= alpha_min <= 1:
            raise ParameterError(f"three_dfed: alpha_min is {alpha_min}; use a number in [0, 1]")
        self.epochs = epochs
        self.constraint = constraint
        self.max_scale = max_scale
        self.group_size = group_size
        self.neurons = neurons
        self.mask_std = mask_std
        self.alpha_min = alpha_min
        self.candidates = candidates
        self.indicator_scale = indicator_scale
        self.threshold = threshold
        #: α per group of the last attacked round.
        self.alphas: list[float] = []
        #: k.
        self.decoys = 0
        #: Whether the server is known to add noise.
        self.noisy = False
        #: What the coming round sends; None between rounds.
        self.plan: Plan | None = None
        #: The last round's indicators; None if they have been read.
        self.sent: Sent | None = None

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """Unchanged: what the clients send does not depend on what they would train."""
        return samples

    def prepare(self, view: LocalView) -> None:
        """Read the feedback, then prepare what all send."""
        for parameter in learned(view.model).values():  # a model may be frozen for evaluation as a whole
            parameter.requires_grad_()
        params = flat_parameters(view.model).cpu()
        if self.sent is not None:
            self._learn(self.sent, params, view.generator)
        self.sent = None
        count = 1 + len(view.colluding())
        self.decoys = min(self.decoys, count // 2)
        self.plan = self._planned(view, params, count)

    def _learn(self, sent: Sent, params: Tensor, draw: torch.Generator) -> None:
        """Tune α and k by the feedback of the last round."""
        feedback = ((params[sent.positions] - sent.before) / sent.values).nan_to_num()
        verdicts = None if self.noisy else read(feedback, self.threshold)
        if verdicts is None:
            self.noisy, self.alphas = True, [NOISY_ALPHA] * len(self.alphas)
            return
        backdoors, decoys = verdicts[: len(sent.groups)], verdicts[len(sent.groups) :]
        self.decoys = next_decoys(self.decoys, backdoors, decoys)
        self.alphas = next_alphas(self.alphas, backdoors, sent.groups.tolist(), self.alpha_min, draw)

    def _planned(self, view: LocalView, params: Tensor, count: int) -> Plan:
        output = output_layer(view.model, view.num_classes)
        weight = indicator_weight(view.model, output)
        honest = self._honest(view, params)
        stamped = self._stamped(view)
        backdoor = backdoored(view, stamped, self.epochs, self.constraint).cpu()
        backdoor = backdoor * self._scale(honest, backdoor)
        groups = torch.arange(count - self.decoys) // self.group_size
        places, masks = self._masks(output_rows(view.model, output), backdoor, groups, view.generator)
        where = coordinates(view.model, weight).flatten()
        curved = curvature(weight, self._losses(view, stamped)).flatten().cpu()
        moved = backdoor[where].abs() + honest[where].abs()
        return Plan(
            backdoor=backdoor,
            places=places,
            masks=masks,
            groups=groups,
            decoys=self._decoys(view, output, params, honest, backdoor),
            positions=where[quietest(moved, curved, count, self.candidates)],
        )

    def _honest(self, view: LocalView, params: Tensor) -> Tensor:
        """(d,) the update of honest training on the client's own data."""
        model = copy.deepcopy(view.model)
        return train_client(model, params, view.data, view.training, view.generator).cpu()

    def _stamped(self, view: LocalView) -> LabeledData:
        inputs = view.normalize(self.stamp(view.samples.pixels, None)).to(view.data.inputs.device)
        labels = torch.full((len(inputs),), self.target, device=inputs.device)
        return LabeledData(inputs, labels)

    def _scale(self, honest: Tensor, backdoor: Tensor) -> float:
        norms = [float(update.double().norm()) for update in (honest, backdoor)]
        return max(1.0, min(norms[0] / norms[1], self.max_scale)) if norms[1] > 0 else 1.0

    def _masks(
        self, rows: Tensor, backdoor: Tensor, groups: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(b, c) places and (b, c) values of the masks, and α of every group that has none yet."""
        sizes = groups.bincount().tolist()
        self.alphas = self.alphas[: len(sizes)]
        while len(self.alphas) < len(sizes):
            self.alphas.append(NOISY_ALPHA if self.noisy else uniform(self.alpha_min, 1.0, draw))
        others = torch.tensor([label for label in range(len(rows)) if label != self.target])
        std = self.mask_std * (NOISY_STD if self.noisy else 1.0)
        places, masks = [], []
        for size, alpha in zip(sizes, self.alphas, strict=True):
            chosen = rows[others[torch.randperm(len(others), generator=draw)[: self.neurons]]]
            start = drawn_masks(backdoor[chosen], size, std, draw)
            masks.append(optimized_masks(start, backdoor[chosen], alpha).flatten(1))
            places.append(chosen.flatten().repeat(size, 1))
        return torch.cat(places), torch.cat(masks)

    def _losses(self, view: LocalView, stamped: LabeledData) -> Iterator[Tensor]:
        """The loss of every batch on clean and stamped data, at the global model."""
        model = view.model.eval()
        for batch in batches(view):
            for inputs, labels in (view.data, stamped):
                yield F.cross_entropy(model(inputs[batch]), labels[batch])

    def _decoys(
        self, view: LocalView, output: nn.Linear, params: Tensor, honest: Tensor, backdoor: Tensor
    ) -> Tensor:
        """(k, d) the decoys, each away from the honest model in another weight."""
        where = coordinates(view.model, output.weight)
        apart = (backdoor - honest)[where].abs().flatten()
        found = []
        for index in apart.sort(stable=True).indices[: self.decoys].tolist():
            place = divmod(index, where.shape[1])
            found.append(decoy(view, output.weight, place, float((params + honest)[where[place]])).cpu())
        return torch.stack(found) if found else backdoor.new_zeros((0, len(backdoor)))

    def craft(self, view: UpdateView) -> Tensor:
        """The prepared updates; the own ones if nothing was prepared."""
        if self.plan is None:
            return view.own_updates.clone()
        return self.plan.updates(view.num_malicious, self.indicator_scale).to(view.global_params)

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Keep the indicators."""
        if self.plan is None:
            return
        positions, groups = self.plan.positions[: len(crafted)], self.plan.groups[: len(crafted)]
        values = crafted[torch.arange(len(positions)), positions]
        before = view.global_params[positions]
        self.sent = Sent(positions, values.cpu(), before.cpu(), groups[: len(positions)])
        self.plan = None

    def state_dict(self) -> State:
        """The tuned parameters, the prepared round, and the indicators."""
        parts: dict[str, Any] = {"plan": self.plan, "sent": self.sent}
        return {
            "alphas": list(self.alphas),
            "decoys": self.decoys,
            "noisy": self.noisy,
            **{name: _tensors(part) for name, part in parts.items() if part is not None},
        }

    def load_state_dict(self, state: State) -> None:
        """Restore them."""
        self.alphas = list(state.get("alphas", []))
        self.decoys = state.get("decoys", 0)
        self.noisy = state.get("noisy", False)
        self.plan = Plan(**state["plan"]) if "plan" in state else None
        self.sent = Sent(**state["sent"]) if "sent" in state else None


def _tensors(part: Any) -> dict[str, Tensor]:
    return {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
