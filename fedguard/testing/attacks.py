"""The attack contract as checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..contracts.attack import KNOWLEDGE, Attack, DataView, UpdateView
from ..contracts.data import Samples
from ..contracts.registry import attacks, make_aggregator
from ..core.errors import FedGuardError, KnowledgeError
from ..core.state import pack, unpack
from ..guard import Guard
from .core import Check, Report, Untouched, carded, check_contract, documented, require

N, M, D, SHAPE, CLASSES = 10, 3, 40, (1, 8, 8), 10


class Spy(UpdateView):
    """Records which knowledge an attack accesses."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.reached: set[str] = set()

    def _get(self, name: str) -> object:
        self.reached.add(name)
        return super()._get(name)


@dataclass(frozen=True)
class Case:
    """An attack class and its parameters for the checks."""

    cls: type[Attack]
    params: Mapping[str, Any]

    def make(self) -> Attack:
        """Return a fresh attack."""
        return self.cls(**self.params)

    def view(self, attack: Attack, m: int = M, n: int = N, seed: int = 0, index: int = 4) -> Spy:
        """Return a round with exactly the knowledge that the attack declares."""
        know = attack.knowledge
        return Spy(
            index=index,
            num_clients=n,
            global_params=_normal(D, seed=1),
            previous_params=_normal(D, seed=5),
            initial_params=_normal(D, seed=2),
            own_updates=0.1 * _normal(m, D, seed=3),
            generator=torch.Generator().manual_seed(seed),
            attack=attack.name,
            benign_updates=0.1 * _normal(n - m, D, seed=4) if "benign_updates" in know else None,
            aggregator=make_aggregator("mean") if "aggregator" in know else None,
            defense=Guard() if "defense" in know else None,
        )


def check_attack(method: type[Attack] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on an attack; ``params`` default to the class's ``check_with``."""
    return check_contract(method, attacks, params, Case, CHECKS)


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _samples() -> Samples:
    pixels = torch.rand((30, *SHAPE), generator=torch.Generator().manual_seed(0))
    return Samples(pixels, torch.arange(30) % CLASSES)


def _data_view() -> DataView:
    return DataView(1, M, CLASSES, torch.Generator().manual_seed(3))


def card(case: Case) -> None:
    """The class has a complete card and docstring, a goal, and declares known kinds of knowledge."""
    carded(case.cls)
    documented(case.cls)
    require(case.cls.goal in ("none", "untargeted", "targeted"), f"its goal is {case.cls.goal!r}")
    require(
        case.make().knowledge <= case.cls.knowledge | set(),
        "an instance declares more knowledge than its class",
    )
    require(case.cls.knowledge <= KNOWLEDGE.keys(), "it declares unknown knowledge")


def crafts(case: Case) -> None:
    """One finite float32 update per malicious client, also in unusual rounds. Mind m = 1, m = n, m > n/2."""
    attack = case.make()
    for n, m in ((N, M), (N, 1), (3, 2), (N, 7), (4, 4), (1, 1)):
        crafted = case.make().craft(case.view(attack, m=m, n=n))
        require(crafted.shape == (m, D), f"{m} of {n} malicious: shape {tuple(crafted.shape)}")
        require(crafted.dtype == torch.float32, f"it crafts {crafted.dtype}")
        require(crafted.isfinite().all(), f"{m} of {n} malicious: a number is not finite")


def diverged_clients(case: Case) -> None:
    """A benign update with NaN changes nothing. Use view.benign_updates, which holds only finite ones."""
    attack = case.make()
    if "benign_updates" not in attack.knowledge:
        return
    broken, without = case.view(attack), case.view(attack)
    broken._known["benign_updates"] = torch.cat([without.benign_updates, torch.full((1, D), torch.nan)])
    crafted = case.make().craft(broken)
    require(crafted.isfinite().all(), "one honest client with NaN makes it send NaN")
    require(torch.equal(crafted, case.make().craft(without)), "a client with NaN changes what it sends")


def purity(case: Case) -> None:
    """Crafting changes neither its inputs nor its state. Change state only in commit()."""
    attack = case.make()
    view = case.view(attack)
    given = Untouched(own=view.own_updates, model=view.global_params, first_model=view.initial_params)
    state = pack(attack.state_dict())
    attack.craft(view).add_(1.0) if attack.kind in ("model", "backdoor") else attack.craft(view)
    given.verify()
    require(pack(attack.state_dict()) == state, "its state changed; that is for commit()")


def seed_purity(case: Case) -> None:
    """The same seed gives the same bits. Draw from view.generator only."""
    one, other = (case.make().craft(case.view(case.make(), seed=7)) for _ in range(2))
    require(torch.equal(one, other), "two fresh attacks craft different updates")


def declared_knowledge(case: Case) -> None:
    """It uses only declared knowledge. Declare it in the set `knowledge`."""
    attack = case.make()
    view = case.view(attack)
    try:
        attack.craft(view)
    except KnowledgeError as error:
        raise AssertionError(str(error)) from None
    require(view.reached <= attack.knowledge, f"it used {sorted(view.reached - attack.knowledge)}")


def data(case: Case) -> None:
    """Poisoned data are new, valid and repeatable: pixels in [0, 1], existing labels."""
    samples, given = _samples(), _samples()
    poisoned = case.make().poison_data(samples, _data_view())
    again = case.make().poison_data(_samples(), _data_view())
    unchanged = torch.equal(samples.pixels, given.pixels) and torch.equal(samples.labels, given.labels)
    require(unchanged, "it changed the samples in place")
    require(all(torch.equal(a, b) for a, b in zip(poisoned, again, strict=True)), "it is not repeatable")
    require(len(poisoned.pixels) == len(poisoned.labels) > 0, "pixels and labels differ in number")
    require(poisoned.pixels.min() >= 0 and poisoned.pixels.max() <= 1, "a pixel is out of [0, 1]")
    require(poisoned.labels.min() >= 0 and poisoned.labels.max() < CLASSES, "a label does not exist")


def trial(case: Case) -> None:
    """Targeted attacks, and only they, have a trial; a correct prediction never counts as success."""
    attack = case.make()
    found = attack.trial(_samples(), CLASSES)
    require(
        (found is not None) == (attack.goal == "targeted"), f"goal {attack.goal}, trial {found is not None}"
    )
    if found is not None:
        require(len(found.target) == len(found.samples.labels) > 0, "the trial is empty")
        require((found.target != found.samples.labels).all(), "the right label counts as success")


def state_round_trip(case: Case) -> None:
    """The state after commit() survives packing. Keep tensors and JSON values in state_dict."""
    attack, restored = case.make(), case.make()
    for index in range(2):
        view = case.view(attack, index=index)
        attack.commit(view, attack.craft(view))
    restored.load_state_dict(unpack(pack(attack.state_dict())))
    one, other = (a.craft(case.view(attack, index=2)) for a in (attack, restored))
    require(torch.equal(one, other), "the loaded state is different")


def small_images(case: Case) -> None:
    """It accepts images of 8 x 8 with ten classes, or says why not. Raise ParameterError in check()."""
    if case.cls.kind == "passive":
        return
    try:
        case.make().check(SHAPE, CLASSES, N, M)
    except FedGuardError as error:
        raise AssertionError(f"it refuses them: {error}") from None


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "one update per malicious client": crafts,
    "diverged clients": diverged_clients,
    "crafting is pure": purity,
    "same seed, same bits": seed_purity,
    "declared knowledge": declared_knowledge,
    "poisoned data": data,
    "trial": trial,
    "state round trip": state_round_trip,
    "small images": small_images,
}
