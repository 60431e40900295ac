"""The attack contract as checks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.attack import KNOWLEDGE, Attack, DataView, UpdateView
from ..contracts.data import LabeledData, Samples
from ..contracts.local_training import LocalTraining
from ..contracts.local_view import LocalView
from ..contracts.registry import attacks, make_aggregator
from ..core.errors import FedGuardError, KnowledgeError
from ..core.state import pack, unpack
from ..guard import Guard
from ..passive import Leak, PassiveAttack
from ..training.local import train_client
from ..training.parameters import flat_parameters
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

    def view(
        self,
        attack: Attack,
        m: int = M,
        n: int = N,
        seed: int = 0,
        index: int = 4,
        knowledge: Collection[str] | None = None,
        benign_scale: float = 0.1,
    ) -> Spy:
        """A round with exactly what the attack declares, or with ``knowledge`` instead."""
        know = attack.knowledge if knowledge is None else knowledge
        benign = benign_scale * _normal(n - m, D, seed=4)
        return Spy(
            index=index,
            num_clients=n,
            global_params=_normal(D, seed=1),
            previous_params=_normal(D, seed=5),
            initial_params=_normal(D, seed=2),
            own_updates=0.1 * _normal(m, D, seed=3),
            generator=torch.Generator().manual_seed(seed),
            attack=attack.name,
            benign_updates=benign if "benign_updates" in know else None,
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


def _data_view(attack: Attack) -> DataView:
    everybody = _samples() if "data" in attack.knowledge else None
    return DataView(1, M, CLASSES, torch.Generator().manual_seed(3), everybody)


def _local_view() -> LocalView:
    samples = _samples()
    flat = SHAPE[0] * SHAPE[1] * SHAPE[2]
    with torch.random.fork_rng(devices=[]):  # the initial values are replaced below
        model = nn.Sequential(nn.Flatten(), nn.Linear(flat, 6), nn.ReLU(), nn.Linear(6, CLASSES))
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    data = LabeledData(samples.pixels - 0.5, samples.labels)
    training = LocalTraining(batch_size=8)
    return LocalView(0, model, samples, data, lambda pixels: pixels - 0.5, training, CLASSES, draw)


def card(case: Case) -> None:
    """The class has a complete card and docstring, a goal, and declares known kinds of knowledge."""
    carded(case.cls)
    documented(case.cls)
    require(case.cls.goal in ("none", "untargeted", "targeted"), f"its goal is {case.cls.goal!r}")
    idle = case.cls.kind in ("none", "passive")
    require(idle == (case.cls.goal == "none"), f"kind {case.cls.kind!r} with the goal {case.cls.goal!r}")
    require(case.make().knowledge <= case.cls.knowledge | set(), "an instance knows more than its class")
    require(case.cls.knowledge <= KNOWLEDGE.keys(), "it declares unknown knowledge")


def overrides(case: Case) -> None:
    """Model attacks craft, data attacks poison, backdoors poison or do both. Set `kind` to what it does."""
    cls = case.cls
    does = {
        "craft": cls.craft is not Attack.craft,
        "poison_data": cls.poison_data is not Attack.poison_data,
    }
    expected = {
        "model": {"craft": True, "poison_data": False},
        "data": {"craft": False, "poison_data": True},
        "backdoor": {"craft": does["craft"], "poison_data": True},
    }.get(cls.kind, {"craft": False, "poison_data": False})
    wrong = [
        f"{'defines' if does[name] else 'lacks'} {name}" for name in does if does[name] != expected[name]
    ]
    require(not wrong, f"an attack of kind {cls.kind!r} that {' and '.join(wrong)}")


def crafts(case: Case) -> None:
    """One finite float32 update per malicious client, also in unusual rounds. Mind m = 1, m = n, m > n/2."""
    attack = case.make()
    for n, m in ((N, M), (N, 1), (3, 2), (N, 7), (4, 4), (1, 1)):
        crafted = case.make().craft(case.view(attack, m=m, n=n))
        require(crafted.shape == (m, D), f"{m} of {n} malicious: shape {tuple(crafted.shape)}")
        require(crafted.dtype == torch.float32, f"it crafts {crafted.dtype}")
        require(crafted.isfinite().all(), f"{m} of {n} malicious: a number is not finite")
        require(crafted.is_contiguous(), "the rows are views of one another; finish with .repeat or .clone")


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
    known = {"benign": view.benign_updates} if "benign_updates" in attack.knowledge else {}
    given = Untouched(
        own=view.own_updates, model=view.global_params, first_model=view.initial_params, **known
    )
    state = pack(attack.state_dict())
    crafted = attack.craft(view)
    kept = crafted.clone()
    if attack.kind in ("model", "backdoor"):
        crafted.add_(1.0)  # what is sent is no alias of what was seen
    given.verify()
    require(pack(attack.state_dict()) == state, "its state changed; that is for commit()")
    require(torch.equal(attack.craft(case.view(attack)), kept), "the same round gives other updates")


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


def used_knowledge(case: Case) -> None:
    """What it declares changes what it sends. Remove from `knowledge` what you do not use."""
    attack = case.make()
    if "benign_updates" not in attack.knowledge:
        return
    here, elsewhere = (case.make().craft(case.view(attack, benign_scale=scale)) for scale in (0.1, 0.3))
    require(not torch.equal(here, elsewhere), "benign updates three times as long change nothing")


def only_declared(case: Case) -> None:
    """With everything in view it uses what it declares, neither more nor less. Correct `knowledge`."""
    attack = case.make()
    view = case.view(attack, knowledge=KNOWLEDGE)
    attack.craft(view)
    reached, declared = sorted(view.reached), sorted(attack.knowledge - {"data"})  # seen before training
    require(not declared or reached == declared, f"it used {reached} and declares {declared}")


def data(case: Case) -> None:
    """Poisoned data are new, valid and repeatable: pixels in [0, 1], labels that exist."""
    samples = _samples()
    given = Untouched(pixels=samples.pixels, labels=samples.labels)
    poisoned = case.make().poison_data(samples, _data_view(case.make()))
    again = case.make().poison_data(_samples(), _data_view(case.make()))
    given.verify()
    require(all(torch.equal(a, b) for a, b in zip(poisoned, again, strict=True)), "not repeatable")
    require(len(poisoned.pixels) == len(poisoned.labels), "pixels and labels differ in number")
    require(len(poisoned.labels) >= len(samples.labels), "samples are missing")
    require(poisoned.pixels.dtype == samples.pixels.dtype, f"pixels of type {poisoned.pixels.dtype}")
    require(poisoned.labels.dtype == samples.labels.dtype, f"labels of type {poisoned.labels.dtype}")
    require(poisoned.pixels.shape[1:] == SHAPE, f"images of shape {tuple(poisoned.pixels.shape[1:])}")
    require(poisoned.pixels.min() >= 0 and poisoned.pixels.max() <= 1, "a pixel is out of [0, 1]")
    require(poisoned.labels.min() >= 0 and poisoned.labels.max() < CLASSES, "a label does not exist")


def trial(case: Case) -> None:
    """Targeted attacks, and only they, have a trial; a correct prediction never counts as success."""
    attack = case.make()
    samples = _samples()
    given = Untouched(pixels=samples.pixels, labels=samples.labels)
    found = attack.trial(samples, CLASSES)
    given.verify()
    require(
        (found is not None) == (attack.goal == "targeted"), f"goal {attack.goal}, trial {found is not None}"
    )
    if found is not None:
        count = len(found.samples.labels)
        require(len(found.target) == len(found.samples.pixels) == count > 0, "the trial is empty or uneven")
        require(found.target.dtype == samples.labels.dtype, f"targets of type {found.target.dtype}")
        require(found.target.min() >= 0 and found.target.max() < CLASSES, "a target does not exist")
        require((found.target != found.samples.labels).all(), "the right label counts as success")


def own_training(case: Case) -> None:
    """Preparing and training are repeatable, and stay finite. Draw from view.generator only."""
    ends = []
    for _ in range(2):
        attack, view = case.make(), _local_view()
        given = Untouched(pixels=view.samples.pixels, inputs=view.data.inputs)
        attack.prepare(view)
        attack.train(view)
        given.verify()
        model = torch.cat([p.detach().flatten() for p in view.model.parameters()])
        require(model.isfinite().all(), "a parameter that it trained is not finite")
        ends.append((model, pack(attack.state_dict())))
    require(torch.equal(ends[0][0], ends[1][0]), "training twice gives two models")
    require(ends[0][1] == ends[1][1], "preparing twice gives two states")


def reconstruction(case: Case) -> None:
    """A passive attack finds finite inputs, or labels, with the same bits twice, and leaves what it sees."""
    attack = case.make()
    if not isinstance(attack, PassiveAttack):
        return
    found = []
    for _ in range(2):
        leak = _leak()
        given = Untouched(params=leak.global_params, update=leak.update)
        found.append(attack.reconstruct(leak))
        given.verify()
    one, other = found
    require(one.inputs is not None or one.labels is not None, "it finds neither inputs nor labels")
    for name, part, again in zip(one._fields, one, other, strict=True):
        if part is not None:
            require(again is not None and torch.equal(part, again), f"two searches give other {name}")
    if one.inputs is not None:
        require(one.inputs.shape[1:] == SHAPE, f"inputs have the shape {tuple(one.inputs.shape)}")
        require(bool(one.inputs.isfinite().all()), "an input is not finite")
    if one.labels is not None:
        known = (one.labels >= 0) & (one.labels < CLASSES)
        require(one.labels.ndim == 1 and bool(known.all()), "labels are not those of the classes")


def _leak() -> Leak:
    """What is seen of a client that took one step on two samples."""
    view = _local_view()
    data = LabeledData(view.data.inputs[:2], view.data.labels[:2])
    training = LocalTraining(epochs=None, steps=1, batch_size=2, lr=0.1)
    start = flat_parameters(view.model)
    update = train_client(view.model, start, data, training, torch.Generator().manual_seed(5))
    return Leak(
        model=view.model.eval(),
        global_params=start,
        update=update,
        input_shape=SHAPE,
        num_classes=CLASSES,
        count=2,
        gradient_scale=0.1,
        bounds=(torch.tensor(-0.5), torch.tensor(0.5)),
        generator=torch.Generator().manual_seed(6),
        training=training,
    )


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
    try:
        case.make().check(SHAPE, CLASSES, N, M)
    except FedGuardError as error:
        raise AssertionError(f"it refuses them: {error}") from None


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "what it overrides fits its kind": overrides,
    "one update per malicious client": crafts,
    "diverged clients": diverged_clients,
    "crafting is pure": purity,
    "same seed, same bits": seed_purity,
    "declared knowledge": declared_knowledge,
    "more knowledge is used": used_knowledge,
    "what is there is used": only_declared,
    "poisoned data": data,
    "trial": trial,
    "own training": own_training,
    "reconstruction": reconstruction,
    "state round trip": state_round_trip,
    "small images": small_images,
}
