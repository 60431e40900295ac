"""What all cells of one seed share: data, who has which samples, the first model, who is malicious."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from ..contracts.attack import Attack, DataView
from ..contracts.card import Method
from ..contracts.data import LabeledData, Samples, Share
from ..contracts.detector import NEEDS, check_needs
from ..contracts.local_training import LocalTraining
from ..contracts.server import Server, map_in_order
from ..core.errors import FedGuardError, ParameterError
from ..core.files import save_tensors
from ..core.seeds import derive, generator, numpy_generator
from ..guard import Guard
from ..training.parameters import batches, flat_parameters, flat_statistics
from .build import build_attack
from .datasets import Dataset, load_dataset
from .models import build_model
from .partitions import make_partition
from .pool import scratch, shared
from .settings import AttackSpec, Cell, Defense
from .skew import label_skew


class Setup:
    """A federation before its first round, the same for every attack and defense of a seed.

    Args:
        cell: its settings and seed.

    Raises:
        DataError: the data set cannot be read.
        FedGuardError: a part cannot be built; ``key`` says which setting is to blame.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        seed = cell.seed
        with _blame("data"):
            if cell.data.params:
                raise ParameterError(f"data takes no parameters, got {', '.join(cell.data.params)}")
            self.dataset: Dataset = shared().get(cell.data.name) or load_dataset(cell.data.name)
        train, held = self.dataset.train, cell.server.validation + cell.server.root
        with _blame("server"):
            if held >= len(train.labels):
                raise ParameterError(f"{held} samples for the server, of only {len(train.labels)} in all")
        order = torch.randperm(len(train.labels), generator=generator(seed, "held out"))
        self.validation = self._held_out(order[: cell.server.validation])
        self.root = self._held_out(order[cell.server.validation : held])
        rest = order[held:].sort().values if held else order.sort().values
        with _blame("partition"):
            parts = make_partition(
                cell.partition.name,
                train.labels[rest].numpy(),
                cell.clients,
                numpy_generator(seed, "partition"),
                **cell.partition.params,
            )
        self.samples = [rest[torch.as_tensor(part)] for part in parts]
        with _blame("model"):
            self.model = build_model(
                cell.model.name,
                self.dataset.input_shape,
                self.dataset.num_classes,
                generator(seed, "model"),
                **cell.model.params,
            )
        self.initial = flat_parameters(self.model)
        self.initial_statistics = flat_statistics(self.model)
        self.test = self.dataset.test_set
        self.training = LocalTraining(**cell.training.model_dump())
        chosen = torch.randperm(cell.clients, generator=generator(seed, "malicious"))[: cell.malicious]
        #: In the order in which they are compromised.
        self.malicious: list[int] = chosen.tolist()

    def _held_out(self, index: Tensor) -> LabeledData | None:
        return self.dataset.labeled(self.dataset.train.take(index)) if len(index) else None

    def client_samples(self, client: int) -> Samples:
        """A client's own samples, before anything is poisoned."""
        return self.dataset.train.take(self.samples[client])

    @property
    def label_skew(self) -> NDArray[np.float64]:
        """(n,) how far each client's labels are from everybody's, see :func:`~.skew.label_skew`."""
        labels = self.dataset.train.labels
        return label_skew([labels[index].numpy() for index in self.samples], self.dataset.num_classes)

    def server(self, map: Any = map_in_order) -> Server:
        """The server of this federation; its work is run by ``map``."""
        return Server(
            model=self.model,
            input_shape=self.dataset.input_shape,
            num_classes=self.dataset.num_classes,
            validation=self.validation,
            root=self.root,
            training=self.training,
            seed=derive(self.cell.seed, "server"),
            map=map,
        )

    def participants(self, round_index: int, allowed: Iterable[int], members: int) -> list[int]:
        """Who is asked in this round: a random share of the members, out of those allowed, in order."""
        pool = sorted(allowed)
        count = min(self.cell.shrunk_to(members).participants, len(pool))
        order = numpy_generator(self.cell.seed, "participants", round_index).permutation(len(pool))
        return sorted(pool[i] for i in order[:count])

    def check_attack(self, attack: Attack) -> None:
        """Refuse an attack that these data or numbers do not allow (ParameterError)."""
        if attack.kind != "none" and not self.malicious:
            raise ParameterError(f"attack {attack.name} needs malicious clients; set `malicious` above 0")
        n, m = self.cell.participants, len(self.malicious)
        attack.check(self.dataset.input_shape, self.dataset.num_classes, n, -(-m * n // self.cell.clients))

    def check_guard(self, guard: Guard, n: int) -> None:
        """Refuse a guard that lacks something, or that n clients (told attackers among them) cannot serve."""
        have = {"model", "training", "global_params"} | {
            name for name in ("validation", "root") if getattr(self, name) is not None
        }
        check_parts(guard, n, frozenset(have & NEEDS.keys()))


def check_parts(guard: Guard, n: int, available: frozenset[str]) -> None:
    """Refuse a guard whose parts need what is not available, or other numbers of clients than n."""
    for detector in guard.detectors.values():
        detector.check(n, available)
        _check_majority(detector, n)
    for part in guard.aggregation():
        check_needs(part.name, part.needs, available)
        _check_majority(part, n)
        if part.min_clients() > n:
            raise ParameterError(f"{part.name} needs at least {part.min_clients()} clients, a round has {n}")


def _check_majority(method: Method, n: int) -> None:
    """No method that counts on f attackers works without a majority of honest clients."""
    f = getattr(method, "num_malicious", None) or 0
    if 2 * f >= n:
        raise ParameterError(
            f"{method.name} is told of {f} malicious clients among {n} per round; it needs an honest "
            "majority, so lower `assumed_malicious` (or its own num_malicious)"
        )


@functools.lru_cache(maxsize=256)
def cell_of(cell_json: str) -> Cell:
    """A cell from its JSON, which is how it travels to workers with every piece of work."""
    return Cell.model_validate_json(cell_json)


def setup_for(cell: Cell) -> Setup:
    """The setup of a cell, shared by all attacks and defenses; the last few are kept."""
    return _setup(_key(cell, AttackSpec(name="none")))


def setup_of(cell_json: str) -> Setup:
    """The same from the cell's JSON."""
    return _setup(_keys(cell_json)[0])


@functools.lru_cache(maxsize=4)
def _setup(key: str) -> Setup:
    return Setup(Cell.model_validate_json(key))


def _key(cell: Cell, attack: AttackSpec) -> str:
    """The same text for all cells that differ in what is not the federation and not this attack."""
    nothing = {"attack_label": "", "defense_label": "", "defense": Defense(), "mode": "closed", "point": {}}
    return cell.model_copy(update={**nothing, "attack": attack, "recording": None}).model_dump_json()


@functools.lru_cache(maxsize=1024)
def _keys(cell_json: str) -> tuple[str, str]:
    """What the setup of a cell depends on, and what its poisoned data do: neither on the defense."""
    cell = cell_of(cell_json)
    attack = AttackSpec(name=cell.attack.name, **cell.attack.params)  # whatever its schedule is
    return _key(cell, AttackSpec(name="none")), _key(cell, attack)


def training_data(cell_json: str, client: int, attacking: bool) -> LabeledData | Share:
    """What a client trains on: its own samples, poisoned if it is attacking and the attack does that."""
    setup, key = setup_of(cell_json), _keys(cell_json)[1]
    if attacking and _poisons(key):
        return _poisoned(key, client)
    return Share(setup.dataset.training_set, setup.samples[client])


def poisons(attack: Attack) -> bool:
    """Whether an attack may change training data."""
    return type(attack).poison_data is not Attack.poison_data


@functools.lru_cache(maxsize=512)
def poisoned_differ(cell_json: str, client: int) -> bool:
    """Whether the attack changes anything about a client's training data."""
    setup, poisoned = setup_of(cell_json), training_data(cell_json, client, attacking=True)
    own = setup.dataset.labeled(setup.client_samples(client))
    return isinstance(poisoned, LabeledData) and not all(map(torch.equal, own, poisoned))


@functools.lru_cache(maxsize=64)
def _poisons(key: str) -> bool:
    return poisons(build_attack(cell_of(key)))


@functools.lru_cache(maxsize=512)
def _poisoned(key: str, client: int) -> LabeledData:
    """The poisoned data of a client, made once for all defenses, and by one worker for all."""
    folder = scratch()
    if folder is None:
        return _poison(key, client)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}-{client}"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            save_tensors(_poison(key, client)._asdict(), path)
        return LabeledData(**load_file(path))


def _poison(key: str, client: int) -> LabeledData:
    cell, setup = cell_of(key), setup_of(key)
    view = DataView(
        rank=sorted(setup.malicious).index(client),
        num_malicious=len(setup.malicious),
        num_classes=setup.dataset.num_classes,
        generator=generator(cell.seed, "attack data", client),
    )
    samples = build_attack(cell).poison_data(setup.client_samples(client), view)
    return setup.dataset.labeled(samples)


def test_batches(cell_json: str, targeted: bool) -> list[LabeledData]:
    """The test set in batches: as it is, or the samples and target labels of the attack's trial."""
    return _trial_batches(_keys(cell_json)[1]) if targeted else batches(setup_of(cell_json).test)


@functools.lru_cache(maxsize=4)
def _trial_batches(key: str) -> list[LabeledData]:
    cell, setup = cell_of(key), setup_of(key)
    trial = build_attack(cell).trial(setup.dataset.test, setup.dataset.num_classes)
    if trial is None:
        return []
    return batches(LabeledData(setup.dataset.normalize(trial.samples.pixels), trial.target))


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    try:
        yield
    except FedGuardError as error:
        error.key = key
        raise
