"""The detector contract: subclass, implement ``score``, add a card."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor, nn

from ..core.errors import DetectorError, NeedError, TooFewClientsError
from ..core.state import State
from .card import Method
from .round import Round, as_round
from .scores import Scores

if TYPE_CHECKING:
    from .decision import Decision

#: Name that ``Detector.needs`` may hold → how to provide it.
NEEDS = {
    "model": "give the round a Server(model=…)",
    "validation": "give the round a Server(validation=LabeledData(inputs, labels)), "
    "or set `server.validation` in the suite",
    "root": "give the round a Server(root=LabeledData(inputs, labels)), or set `server.root` in the suite",
    "training": "give the round a Server(training=LocalTraining(…)): how clients train",
    "global_params": "give the round its global_params",
}


class Detector(Method, ABC):
    """Scores every client of a round; **higher is more suspicious**.

    Subclasses implement ``score``, which is arithmetic only. Calling the detector checks its needs, the
    number of clients, shapes and finiteness. Clients with unusable updates become suspects with score +Inf,
    and ``score`` does not see them.

    ``score`` must not change the detector. It returns what later rounds need as ``Scores.memory``, and
    ``commit`` stores it once the guard has accepted the round, so that a rejected round has no effect.
    History is keyed by client id, never by position.

    Example:
        >>> from fedguard import Card, Detector
        >>> class Norm(Detector):
        ...     card = Card("norm", "Euclidean norm of the update", "FedGuard")
        ...     def score(self, round):
        ...         return round.updates.norms
        >>> Norm()([[3.0, 4.0], [0.0, 1.0]]).values
        array([5., 1.])
    """

    #: Names from ``NEEDS`` that the round must provide. An instance may have other needs than its class.
    needs: frozenset[str] = frozenset()
    #: True if ``score`` returns ``Scores.weights``, which the policy "reweight" uses.
    gives_weights: bool = False

    #: The attack that the contract check plants, see ``fedguard.testing.detectors.PLANTS``.
    plant: ClassVar[str] = "wild"
    #: Rounds of history needed before the detector can find the planted attack.
    warm_up: ClassVar[int] = 0
    #: Parameters needed to find the planted attack, in addition to ``check_with``.
    check_plant_with: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @abstractmethod
    def score(self, round: Round) -> Scores | np.ndarray[Any, Any] | Tensor:
        """(n,) scores of a round whose updates are all finite, as :class:`Scores`, array or tensor."""

    def min_clients(self) -> int:
        """The smallest number of clients that this detector can score."""
        return 1

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Add an accepted round to the history; ``round`` holds the scored clients only."""

    def state_dict(self) -> State:
        """A snapshot of everything that ``commit`` has stored.

        Nested dicts (string keys) of tensors and JSON values; later commits do not change it.
        """
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""

    def __call__(self, round: Round | Any) -> Scores:
        """Score a round (or a bare (n, d) array) with all checks.

        Raises:
            NeedError: the round lacks something that the detector needs.
            TooFewClientsError: the round has fewer clients than ``min_clients()``.
            DetectorError: ``score`` did not return one number per client.
        """
        round = as_round(round)
        usable = round.usable
        if usable.all():
            return self._checked(round)
        if not usable.any():
            return Scores(np.empty(0), np.empty(0, dtype=bool)).spread(usable)
        return self._checked(round.take(np.flatnonzero(usable))).spread(usable)

    def check(self, n: int, available: frozenset[str]) -> None:
        """Reject a number of clients or a server that the detector cannot use, before anything runs.

        Args:
            n: clients per round.
            available: the names from ``NEEDS`` that rounds will provide.

        Raises:
            NeedError: something needed is not available.
            TooFewClientsError: n is below ``min_clients()``.
        """
        check_needs(self.name, self.needs, available)
        if n < self.min_clients():
            raise TooFewClientsError(
                f"{self.name} needs at least {self.min_clients()} clients, the round has {n}"
            )

    def _checked(self, round: Round) -> Scores:
        self.check(round.n, available(round))
        if round.server is not None:
            check_inputs(self, round.server.model, round.server.input_shape)
        result = self.score(round)
        scores = result if isinstance(result, Scores) else Scores(result)  # type: ignore[arg-type]
        values = self._array(scores.values, "scores", round.n, np.float64)
        if np.isnan(values).any():
            who = round.client_ids[int(np.isnan(values).argmax())]
            raise DetectorError(
                f"{self.name} returned NaN for client {who!r}; use +Inf for 'cannot be trusted'"
            )
        suspects, weights = scores.suspects, scores.weights
        if suspects is not None:
            suspects = self._array(suspects, "suspects", round.n, np.bool_)
        if weights is not None:
            weights = self._array(weights, "weights", round.n, np.float64)
        framed = scores.framed
        if framed is not None:
            framed = self._array(framed, "framed", round.n, np.bool_)
        if scores.reasons is not None and len(scores.reasons) != round.n:
            raise DetectorError(f"{self.name} returned {len(scores.reasons)} reasons for {round.n} clients")
        if (weights is None and self.gives_weights) or np.isnan(0.0 if weights is None else weights).any():
            raise DetectorError(f"{self.name} says that it gives weights, but returned none or NaN")
        return dataclasses.replace(scores, values=values, suspects=suspects, weights=weights, framed=framed)

    def _array(self, values: Any, what: str, n: int, dtype: type[Any]) -> np.ndarray[Any, Any]:
        try:
            plain = values.detach().cpu().double() if isinstance(values, Tensor) else values
            array = np.asarray(plain, dtype=dtype)
        except (TypeError, ValueError) as error:
            raise DetectorError(f"{self.name} returned {what} that are not numbers: {error}") from None
        if array.shape != (n,):
            raise DetectorError(f"{self.name} returned {what} of shape {array.shape} for {n} clients")
        return array


def check_needs(method: str, needs: frozenset[str], available: frozenset[str]) -> None:
    """Raise an error if a need is not available.

    Raises:
        NeedError: names the first missing need and how to provide it.
    """
    for need in sorted(needs - available):
        raise NeedError(f"{method} needs {need}: {NEEDS.get(need, 'provide it')}")


def check_inputs(method: Method, model: nn.Module | None, input_shape: tuple[int, ...] | None) -> None:
    """Refuse a method that makes inputs of real numbers for a model that looks up token numbers.

    Args:
        method: of any kind.
        model: it reads tokens if it has an ``nn.Embedding`` and its inputs are rows.
        input_shape: of one input.

    Raises:
        NeedError: the method does not work on texts.
    """
    if not method.makes_inputs or model is None or input_shape is None or len(input_shape) != 1:
        return
    if any(isinstance(part, nn.Embedding) for part in model.modules()):
        raise NeedError(
            f"{method.name} makes inputs of real numbers, as images have, but this model reads token "
            "numbers; choose a method that looks at updates only"
        )


def available(round: Round) -> frozenset[str]:
    """The names from ``NEEDS`` that a round provides."""
    parts = ("model", "validation", "root", "training")
    have = {name for name in parts if getattr(round.server, name, None) is not None}
    if round.global_params is not None:
        have.add("global_params")
    return frozenset(have)
