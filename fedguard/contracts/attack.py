"""The attack contract: an attack declares its knowledge and gets a view that holds exactly that."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..core.errors import KnowledgeError, ParameterError
from ..core.state import State
from ..geometry.updates import Updates
from .card import Method
from .data import Samples
from .local_view import LocalView

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .aggregator import Aggregator
    from .local_training import LocalTraining
    from .round import Round

#: Knowledge that an attack may declare → what it gives access to. Every attack knows its own clients' data
#: and updates, the global model and the protocol.
KNOWLEDGE = {
    "benign_updates": "the updates of all benign clients in this round",
    "aggregator": "the server's aggregation rule",
    "defense": "the server's guard: detectors, policy and aggregator",
    "data": "the training data of all clients",
}

Knowledge = Literal["full", "partial"]


class Defense(Protocol):
    """The part of a guard (:class:`fedguard.Guard`) that an attacker may query."""

    def suspects(self, round: Round) -> NDArray[np.bool_]:
        """(n,) the clients that it would suspect."""


class Trial(NamedTuple):
    """The test set for the attack success rate: samples, and the label per sample that counts as success."""

    samples: Samples
    target: Tensor


@dataclass(frozen=True)
class DataView:
    """What an attack sees when it poisons one malicious client's data before training.

    Attributes:
        rank: the malicious client's number, 0 … m−1.
        num_malicious: m.
        num_classes: the number of labels.
        generator: the attacker's randomness for this client.
        everybody: the training data of all clients; None unless the attack declares "data" in ``knowledge``.
    """

    rank: int
    num_malicious: int
    num_classes: int
    generator: torch.Generator
    everybody: Samples | None = None


#: Changes the gradients of one local training step, one tensor per model parameter.
Adjust: TypeAlias = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


#: (m, d) malicious updates → the round that the server would receive, and the malicious clients' positions.
Received: TypeAlias = Callable[[Tensor], tuple["Round", "NDArray[np.intp]"]]


@dataclass(frozen=True)
class TrainView:
    """What an attack sees before one malicious client trains.

    Attributes:
        index: the round.
        global_params: (d,) w_{t−1}, where training starts.
        previous_params: (d,) w_{t−2}; w_{t−1} in the first round.
        shapes: the shapes of the model's parameters, in the order of the flat vectors.
    """

    index: int
    global_params: Tensor
    previous_params: Tensor
    shapes: tuple[tuple[int, ...], ...]


class UpdateView:
    """What an attack sees when it crafts the malicious updates of one round.

    Always available: ``index``; ``num_clients`` (n of this round) and ``num_malicious`` (m);
    ``global_params`` (d,) w_{t−1}; ``previous_params`` (d,) w_{t−2} (w_{t−1} in the first round);
    ``initial_params`` (d,) w_0; ``own_updates`` (m, d), what the malicious clients would send if they
    were honest (data attacks: after training on poisoned data); ``generator``, the adversary's
    randomness for this round, shared by all colluders.

    Everything else is available only if the attack declares it in ``knowledge``; otherwise access raises
    KnowledgeError.

    ``benign_updates``, ``reference`` and ``before_attack`` omit updates with NaN or Inf, as every server
    does.
    """

    def __init__(
        self,
        *,
        index: int,
        num_clients: int,
        global_params: Tensor,
        initial_params: Tensor,
        own_updates: Tensor | Updates,
        generator: torch.Generator,
        previous_params: Tensor | None = None,
        attack: str = "the attack",
        benign_updates: Tensor | Updates | None = None,
        aggregator: Aggregator | None = None,
        defense: Defense | None = None,
        received: Received | None = None,
    ) -> None:
        self.index = index
        self.num_clients = num_clients
        self.num_malicious = len(own_updates)
        self.global_params = global_params
        self.previous_params = global_params if previous_params is None else previous_params
        self.initial_params = initial_params
        self._own = own_updates
        self.generator = generator
        self._attack = attack
        self._received = received
        self._known = {"benign_updates": benign_updates, "aggregator": aggregator, "defense": defense}

    def _get(self, name: str) -> object:
        value = self._known[name]
        if value is None:
            raise KnowledgeError(
                f"{self._attack} reaches for {name} ({KNOWLEDGE[name]}) without declaring it in `knowledge`"
            )
        return value

    @cached_property
    def own_updates(self) -> Tensor:
        """(m, d) the updates that the malicious clients would send if they were honest."""
        return _matrix(self._own)

    @property
    def benign_updates(self) -> Tensor:
        """(k, d) the finite updates of the benign clients, k ≤ n − m."""
        return _matrix(self._benign())

    def _benign(self) -> Tensor | Updates:
        self._get("benign_updates")
        return self._finite_benign

    @cached_property
    def _finite_benign(self) -> Tensor | Updates:
        return _finite(self._known["benign_updates"])  # type: ignore[arg-type]

    @cached_property
    def _finite_own(self) -> Tensor:
        """The attacker's own finite updates; one zero update if none is finite."""
        own = _matrix(_finite(self.own_updates))
        return own if len(own) else torch.zeros_like(self.own_updates[:1])

    @property
    def aggregator(self) -> Aggregator:
        """The server's aggregation rule."""
        return self._get("aggregator")  # type: ignore[return-value]

    @property
    def defense(self) -> Defense:
        """The server's guard."""
        return self._get("defense")  # type: ignore[return-value]

    def received(self, crafted: Tensor) -> Round:
        """The round that the server would receive with these (m, d) updates; needs "defense".

        It holds only the malicious clients if the attack does not know the benign updates.
        """
        return self._round(crafted)[0]

    def suspected(self, crafted: Tensor) -> NDArray[np.bool_]:
        """(m,) the malicious clients that the attacker's copy of the guard suspects for these updates."""
        round, own = self._round(crafted)
        return self.defense.suspects(round)[own]

    def _round(self, crafted: Tensor) -> tuple[Round, NDArray[np.intp]]:
        from .round import Round  # lazy: few attacks need it

        self._get("defense")
        if self._received is not None:
            return self._received(crafted)
        others = self._known["benign_updates"]  # including those with NaN or Inf, as the server gets them
        updates = crafted if others is None else torch.cat([crafted, others])  # type: ignore[list-item]
        bare = Round(updates, index=self.index, global_params=self.global_params)
        return bare, np.arange(len(crafted))

    def reference(self) -> Tensor:
        """(k, d) the honest finite updates that the attacker knows, k ≥ 1.

        The benign clients' updates if they are known and there are any, otherwise the attacker's own.
        """
        return _matrix(self._reference())

    def reference_updates(self) -> Updates:
        """:meth:`reference` without a copy of the matrix, for attacks that work on blocks of it."""
        known = self._reference()
        return known if isinstance(known, Updates) else Updates(known)

    def _reference(self) -> Tensor | Updates:
        known = self._known["benign_updates"] is not None and len(self._benign()) > 0
        return self._finite_benign if known else self._finite_own

    def before_attack(self) -> Tensor:
        """(k, d) the finite updates of the round without the attack, as far as the attacker knows them."""
        known = self._known["benign_updates"]
        return self._finite_own if known is None else torch.cat([self._finite_own, self.benign_updates])


def _matrix(updates: Tensor | Updates) -> Tensor:
    return updates.matrix if isinstance(updates, Updates) else updates


def _finite(updates: Tensor | Updates) -> Tensor | Updates:
    """The rows without NaN and Inf; the argument itself if all are finite."""
    if isinstance(updates, Updates):
        return updates.take(updates.finite)
    fine = torch.from_numpy(Updates(updates).finite) if updates.numel() else torch.ones(0, dtype=torch.bool)
    return updates if bool(fine.all()) else updates[fine]


class Attack(Method, ABC):
    """What the malicious clients do. Override ``poison_data``, ``craft``, or both.

    Malicious clients collude: one object acts for all of them.

    Example:
        >>> from fedguard import Attack, Card
        >>> class Reverse(Attack):
        ...     card = Card("reverse", "sends the negated mean of the honest updates it knows", "FedGuard")
        ...     kind = "model"
        ...     knowledge = frozenset({"benign_updates"})
        ...     def craft(self, view):
        ...         return -view.reference().mean(0).expand_as(view.own_updates)
        >>> Reverse()
        Reverse()
    """

    #: "model" crafts updates, "data" poisons training data, "backdoor" poisons it to plant a trigger,
    #: "passive" reconstructs data from updates and changes nothing.
    kind: ClassVar[Literal["none", "model", "data", "backdoor", "passive"]]
    #: An instance may have another goal than its class (label flips between chosen classes).
    goal: Literal["none", "untargeted", "targeted"] = "untargeted"
    #: Names from ``KNOWLEDGE``. An instance may know less than its class (``knowledge: partial``).
    knowledge: frozenset[str] = frozenset()

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Reject unsuitable data or numbers of clients before an experiment starts.

        Raises:
            ParameterError: the attack cannot run, for example a pixel trigger on data that are not images.
        """

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """A malicious client's training data; unchanged by default."""
        return samples

    def poison_test(
        self, test: Samples, share: float, num_classes: int, generator: torch.Generator
    ) -> Samples:
        """The test set that accuracy is measured on; by default ``test`` itself.

        Args:
            test: the server's test set.
            share: m / N, the share of it that stands for the malicious clients' own test data.
            num_classes: the number of labels.
            generator: the attacker's randomness.
        """
        return test

    def local_training(self, settings: LocalTraining) -> LocalTraining:
        """How malicious clients train in a round; as honest ones by default.

        Args:
            settings: those of honest clients, without client-side defenses.
        """
        return settings

    def adjust(self, view: TrainView) -> Adjust | None:
        """A function that changes the gradients of each training step of a malicious client, or None."""
        return None

    def prepare(self, view: LocalView) -> None:
        """Change what later calls depend on, such as the trigger, before a round that is attacked.

        Called once per round, on the first malicious client. ``state_dict`` must hold what it changes.
        """

    def train(self, view: LocalView) -> None:
        """Train ``view.model`` in place of local training; an override replaces it altogether."""

    def craft(self, view: UpdateView) -> Tensor:
        """(m, d) the updates that the malicious clients send; by default those that they trained."""
        return view.own_updates

    def claim(self, num_examples: NDArray[np.float64], everybody: NDArray[np.float64]) -> NDArray[Any]:
        """(m,) the sample counts that the malicious clients claim; the true ones by default.

        Args:
            num_examples: (m,) their true sample counts.
            everybody: (n,) the sample counts of all clients of the round.
        """
        return num_examples

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Store what later rounds need, as ``craft`` must not change the attack; ``view`` ends with this."""

    def state_dict(self) -> State:
        """A snapshot of everything that ``commit`` has stored: nested dicts of tensors and JSON values."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The test set for the attack success rate (ASR); None if the attack is untargeted."""
        return None


def limit_knowledge(knowledge: Knowledge) -> frozenset[str]:
    """The knowledge to declare: with "full" all benign updates, with "partial" only the attacker's own.

    Raises:
        ParameterError: ``knowledge`` is neither "full" nor "partial".
    """
    if knowledge not in ("full", "partial"):
        raise ParameterError(f"knowledge is 'full' or 'partial', not {knowledge!r}")
    return frozenset({"benign_updates"}) if knowledge == "full" else frozenset()
