"""The attack contract: declare what you know, get a view that holds exactly that."""

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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .aggregator import Aggregator
    from .round import Round

#: What an attack may declare beyond its own clients' data and updates, the global model and the rules
#: of the protocol, with what each gives.
KNOWLEDGE = {
    "benign_updates": "the updates of all benign clients in this round",
    "aggregator": "the server's aggregation rule",
    "defense": "the server's guard: detectors, policy and aggregator",
}

Knowledge = Literal["full", "partial"]


class Defense(Protocol):
    """The shape of a guard (:class:`fedguard.Guard`), as much of it as an attacker asks."""

    def suspects(self, round: Round) -> NDArray[np.bool_]:
        """(n,) whom it would suspect."""


class Trial(NamedTuple):
    """What attack success is measured on: samples, and for each the label that counts as success."""

    samples: Samples
    target: Tensor


@dataclass(frozen=True)
class DataView:
    """What an attack sees when it poisons one malicious client's data before training.

    Attributes:
        rank: which of the m malicious clients this is, 0 … m−1.
        num_malicious: m.
        num_classes: the number of labels.
        generator: the attacker's randomness for this client.
    """

    rank: int
    num_malicious: int
    num_classes: int
    generator: torch.Generator


#: Changes the gradients of one step of local training, one tensor per parameter of the model.
Adjust: TypeAlias = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]


#: From what the malicious clients send, (m, d), to the round that the server receives and the positions of
#: the malicious clients in it.
Received: TypeAlias = Callable[[Tensor], tuple["Round", "NDArray[np.intp]"]]


@dataclass(frozen=True)
class TrainView:
    """What an attack sees when one malicious client is about to train.

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

    Always there: ``index``; ``num_clients`` (n of this round) and ``num_malicious`` (m);
    ``global_params`` (d,) w_{t−1}; ``previous_params`` (d,) w_{t−2} (w_{t−1} in the first round);
    ``initial_params`` (d,) w_0; ``own_updates`` (m, d), what the malicious clients would send if they
    were honest (data attacks: after training on poisoned data); ``generator``, the adversary's
    randomness for this round, one for all colluders.

    The rest is there only if the attack declares it in ``knowledge``; reaching for it otherwise raises
    KnowledgeError.

    An attacker uses the finite updates it sees: ``benign_updates``, ``reference`` and ``before_attack`` leave
    out those with NaN or Inf, which any server leaves out, too.
    """

    def __init__(
        self,
        *,
        index: int,
        num_clients: int,
        global_params: Tensor,
        initial_params: Tensor,
        own_updates: Tensor,
        generator: torch.Generator,
        previous_params: Tensor | None = None,
        attack: str = "the attack",
        benign_updates: Tensor | None = None,
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
        self.own_updates = own_updates
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

    @property
    def benign_updates(self) -> Tensor:
        """(k, d) the finite updates of the benign clients, k ≤ n − m."""
        self._get("benign_updates")
        return self._finite_benign

    @cached_property
    def _finite_benign(self) -> Tensor:
        return _finite(self._known["benign_updates"])  # type: ignore[arg-type]

    @cached_property
    def _finite_own(self) -> Tensor:
        """Its own clients' finite updates; no update at all if none of them is finite."""
        own = _finite(self.own_updates)
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
        """The round as the server would receive it if these (m, d) updates were sent; needs "defense".

        Without knowledge of the benign updates, it holds the malicious clients alone.
        """
        return self._round(crafted)[0]

    def suspected(self, crafted: Tensor) -> NDArray[np.bool_]:
        """(m,) whom the attacker's copy of the guard would suspect if these (m, d) updates were sent."""
        round, own = self._round(crafted)
        return self.defense.suspects(round)[own]

    def _round(self, crafted: Tensor) -> tuple[Round, NDArray[np.intp]]:
        from .round import Round  # here: attacks that never ask do not need it

        self._get("defense")
        if self._received is not None:
            return self._received(crafted)
        others = self._known["benign_updates"]  # this far the view knows the round by itself
        updates = crafted if others is None else torch.cat([crafted, others])  # type: ignore[list-item]  # the server gets them all
        bare = Round(updates, index=self.index, global_params=self.global_params)
        return bare, np.arange(len(crafted))

    def reference(self) -> Tensor:
        """(k, d) the honest finite updates that the attacker can look at, k ≥ 1.

        All benign clients' if they are known and there are any, otherwise its own clients'.
        """
        known = self._known["benign_updates"]
        return self._finite_own if known is None or len(self.benign_updates) == 0 else self.benign_updates

    def before_attack(self) -> Tensor:
        """(k, d) the finite updates as they would be without the attack, as far as it knows them."""
        known = self._known["benign_updates"]
        return self._finite_own if known is None else torch.cat([self._finite_own, self.benign_updates])


def _finite(updates: Tensor) -> Tensor:
    """The rows without NaN and Inf; the updates themselves if there is no other."""
    fine = torch.from_numpy(Updates(updates).finite) if updates.numel() else torch.ones(0, dtype=torch.bool)
    return updates if bool(fine.all()) else updates[fine]


class Attack(Method, ABC):
    """What the malicious clients do. Override ``poison_data``, ``craft``, or both.

    Malicious clients collude: one object acts for all of them.
    """

    #: "model" crafts updates, "data" changes training data, "backdoor" does it to plant a trigger,
    #: "passive" only looks: it reconstructs data from what it sees.
    kind: ClassVar[Literal["none", "model", "data", "backdoor", "passive"]]
    #: An instance may aim at something else than its class (label flips between chosen classes).
    goal: Literal["none", "untargeted", "targeted"] = "untargeted"
    #: Names out of KNOWLEDGE. An instance may know less than its class (``knowledge: partial``).
    knowledge: frozenset[str] = frozenset()

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse, before anything runs, data or numbers of clients that the attack cannot work with.

        Raises:
            ParameterError: for example a pixel trigger on data that are no images.
        """

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """A malicious client's training data; unchanged unless overridden."""
        return samples

    def adjust(self, view: TrainView) -> Adjust | None:
        """What to do to the gradients of every step of a malicious client's training; None for nothing."""
        return None

    def craft(self, view: UpdateView) -> Tensor:
        """(m, d) what the malicious clients send; what their training gave unless overridden."""
        return view.own_updates

    def claim(self, num_examples: NDArray[np.float64], everybody: NDArray[np.float64]) -> NDArray[Any]:
        """(m,) how many samples the malicious clients claim to have; the truth unless overridden.

        Args:
            num_examples: (m,) how many they have.
            everybody: (n,) how many each client of the round has.
        """
        return num_examples

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Remember what later rounds need, once ``crafted`` was sent; ``craft`` itself changes nothing."""

    def state_dict(self) -> State:
        """Everything that ``commit`` has remembered: nested dicts of tensors and JSON values; a snapshot."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The test on which attack success (ASR) is measured; None if the attack is untargeted."""
        return None


def limit_knowledge(knowledge: Knowledge) -> frozenset[str]:
    """ "full": all benign updates are known; "partial": only the attacker's own clients.

    Raises:
        ParameterError: another word.
    """
    if knowledge not in ("full", "partial"):
        raise ParameterError(f"knowledge is 'full' or 'partial', not {knowledge!r}")
    return frozenset({"benign_updates"}) if knowledge == "full" else frozenset()
