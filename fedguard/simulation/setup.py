"""What all cells of one seed share: data, partition, initial model, malicious clients."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.attack import Attack
from ..contracts.card import GENERATIVE, Method
from ..contracts.data import LabeledData, Samples
from ..contracts.detector import NEEDS, check_inputs, check_needs
from ..contracts.server import Server, map_in_order
from ..core.errors import FedGuardError, ParameterError
from ..core.seeds import derive, generator, numpy_generator
from ..guard import Guard
from ..training.check import check_takes, check_training
from ..training.generation import OUTPUTS
from ..training.losses import BY_TASK
from ..training.parameters import flat_parameters, flat_statistics, load_parameters, load_statistics
from .datasets import Dataset, load_dataset
from .deal import deal, malicious_clients, with_changes
from .generation import generation_score
from .keys import CellKey
from .models import build_model, models
from .models.check import check_fit
from .pool import scratch, shared
from .settings import Cell, Spec
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
            self.dataset: Dataset = shared().get(cell.data.key) or dataset_of(cell.data)
        with _blame("model"):
            generative = is_generative(cell.model.name, self.dataset)
        #: What labels are: "classification", "multilabel", "regression" or "causal"; or "generative".
        self.task: str = GENERATIVE if generative else self.dataset.task
        outputs = OUTPUTS if generative else self.dataset.num_classes
        dealt = deal(cell, self.dataset)
        self.validation = self._held_out(dealt.validation)
        self.root = self._held_out(dealt.root)
        self._dealt = dealt
        self.samples = dealt.samples
        with _blame("training"):
            self.training = cell.training.local(BY_TASK[self.task])
            check_training(
                self.training,
                self.task,
                self.dataset.input_shape,
                outputs,
                [len(rows) for rows in (*dealt.samples, dealt.root) if len(rows)],
            )
        with _blame("model"):
            self.model = build_model(
                cell.model.name,
                self.dataset.input_shape,
                self.dataset.num_classes,
                generator(seed, "model"),
                **cell.model.params,
            )
            train = self.dataset.train
            two = self.dataset.labeled(train.take(torch.arange(2) % len(train.labels))).inputs
            check_fit(cell.model.name, self.model, two, outputs, self._alone(), self.task)
        with _blame("training"):
            check_takes(self.training, self.model)
        self.initial = flat_parameters(self.model)
        self.initial_statistics = flat_statistics(self.model)
        self.test = self.dataset.test_set
        #: In the order in which they are compromised.
        self.malicious: list[int] = malicious_clients(cell)

    def _held_out(self, index: Tensor) -> LabeledData | None:
        return self.dataset.labeled(self.dataset.train.take(index)) if len(index) else None

    def _alone(self) -> str | None:
        """Which client trains on a batch of one sample, with its numbers; None if none does."""
        size = self.training.batch_size
        for client, count in enumerate(map(len, self.samples)):
            last = self.training.steps_for(count) >= -(-count // size)  # it gets to its last batch
            if size == 1 or (count % size == 1 and last):
                return f"client {client}, with {count} samples in batches of {size},"
        return None

    def client_samples(self, client: int) -> Samples:
        """A client's own samples, before any poisoning."""
        return self.clients_data.train.take(self.samples[client])

    @functools.cached_property
    def clients_data(self) -> Dataset:
        """The data set as the clients have it; only a partition that changes inputs makes it another one.

        Made on first use: a setup that is only checked does not need it.
        """
        return with_changes(self.dataset, self._dealt, self.cell, scratch())

    @property
    def label_skew(self) -> NDArray[np.float64]:
        """(n,) how far each client's labels are from those of all clients, see :func:`~.skew.label_skew`.

        NaN for labels other than classes.
        """
        labels = self.dataset.train.labels
        if self.dataset.task != "classification":
            return np.full(len(self.samples), np.nan)
        return label_skew([labels[index].numpy() for index in self.samples], self.dataset.num_classes)

    def score_samples(self, params: Tensor, statistics: Tensor) -> dict[str, float]:
        """How good the samples of a generative model with these parameters are; empty for other models."""
        if self.task != GENERATIVE:
            return {}
        model = copy.deepcopy(self.model).eval()
        load_parameters(model, params)
        load_statistics(model, statistics)
        return generation_score(self.dataset, model)

    def server(self, map: Any = map_in_order) -> Server:
        """The server of this federation; ``map`` runs its work."""
        return Server(
            model=self.model,
            input_shape=self.dataset.input_shape,
            num_classes=self.dataset.num_classes,
            validation=self.validation,
            root=self.root,
            training=self.training,
            seed=derive(self.cell.seed, "server"),
            map=map,
            task=self.task,
            rounds=self.cell.rounds,
        )

    def participants(self, round_index: int, allowed: Iterable[int], members: int) -> list[int]:
        """The participants of a round: a random share of the members, drawn from those allowed, in order.

        With ``malicious_per_round``, exactly so many of them are malicious, as long as there are enough of
        both kinds.
        """
        pool = sorted(allowed)
        count = min(self.cell.shrunk_to(members).participants, len(pool))
        order = numpy_generator(self.cell.seed, "participants", round_index).permutation(len(pool))
        fixed = self.cell.malicious_per_round
        if fixed is None:
            return sorted(pool[i] for i in order[:count])
        malicious = set(self.malicious)
        bad = [pool[i] for i in order if pool[i] in malicious][:fixed]
        good = [pool[i] for i in order if pool[i] not in malicious]
        return sorted([*bad, *good[: count - len(bad)]])

    def check_attack(self, attack: Attack) -> None:
        """Refuse an attack that does not fit the data or the numbers of clients (ParameterError)."""
        if attack.kind not in ("none", "passive") and not self.malicious:
            raise ParameterError(f"attack {attack.name} needs malicious clients; set `malicious` above 0")
        if type(attack).tasks is Method.tasks and self.task != "classification" and _needs_classes(attack):
            raise ParameterError(
                f"attack {attack.name} changes the labels of classes, but {self._purpose}; "
                "use an attack that crafts updates, or data for classification"
            )
        self.check_task(attack)
        n = self.cell.participants
        attack.check(self.dataset.input_shape, self.dataset.num_classes, n, self.cell.malicious_in_round)

    def check_task(self, method: Method) -> None:
        """Refuse a method that is not defined for what the labels are (ParameterError)."""
        for part in (method, *getattr(method, "members", {}).values()):
            if self.task not in part.tasks:
                raise ParameterError(
                    f"{part.name} is defined for {' and '.join(sorted(part.tasks))}, and {self._purpose}; "
                    "choose another method"
                )
            check_inputs(part, self.model, self.dataset.input_shape)
            asked = sorted(getattr(part, "needs", frozenset()) & LABELED)
            if self.task == GENERATIVE and asked:
                raise ParameterError(
                    f"{part.name} needs {' and '.join(asked)} data to predict labels on, and "
                    f"{self._purpose}; choose a method that looks at updates only"
                )

    @property
    def _purpose(self) -> str:
        return "the model generates" if self.task == GENERATIVE else f"the data are for {self.task}"

    def check_guard(self, guard: Guard, n: int) -> None:
        """Refuse a guard that needs what the server lacks, or that does not work with n clients."""
        for method in (*guard.detectors.values(), *guard.aggregation()):
            self.check_task(method)
        have = {"model", "training", "global_params"} | {
            name for name in ("validation", "root") if getattr(self, name) is not None
        }
        check_parts(guard, n, frozenset(have & NEEDS.keys()))


#: What methods need to evaluate or train a model as one that predicts labels.
LABELED = frozenset({"validation", "root"})


def is_generative(name: str, data: Dataset) -> bool:
    """Whether a model generates samples, which takes data with classes: a classifier scores them.

    Raises:
        ParameterError: there is no such model, or it generates and the data have no classes.
    """
    generative = bool(getattr(models.get(name), "generative", False))
    if generative and data.task != "classification":
        raise ParameterError(
            f"model {name} generates samples, which a classifier judges, but the data are for {data.task}"
        )
    return generative


def _needs_classes(attack: Attack) -> bool:
    """Whether an attack (or the attack that it wraps) poisons data, which it does for classes."""
    inner = getattr(attack, "attack", None)
    if isinstance(inner, Attack):
        return _needs_classes(inner)
    return type(attack).poison_data is not Attack.poison_data or type(attack).trial is not Attack.trial


def check_parts(guard: Guard, n: int, available: frozenset[str]) -> None:
    """Refuse a guard whose parts need what is not available, or do not work with n clients."""
    for detector in guard.detectors.values():
        detector.check(n, available)
        _check_majority(detector, n)
    for part in guard.aggregation():
        check_needs(part.name, part.needs, available)
        _check_majority(part, n)
        if part.min_clients() > n:
            raise ParameterError(f"{part.name} needs at least {part.min_clients()} clients, a round has {n}")


def _check_majority(method: Method, n: int) -> None:
    """Refuse a method that assumes f attackers without a majority of honest clients."""
    f = getattr(method, "num_malicious", None) or 0
    if 2 * f >= n:
        raise ParameterError(
            f"{method.name} is told of {f} malicious clients among {n} per round; it needs an honest "
            "majority, so lower `assumed_malicious` (or its own num_malicious)"
        )


def setup_for(cell: Cell) -> Setup:
    """The setup of a cell, shared by all attacks and defenses."""
    return _built(CellKey.for_setup(cell))


def setup_of(key: CellKey) -> Setup:
    """The setup of a cell by the cell's key."""
    return _built(key.setup)


@functools.lru_cache(maxsize=4)  # a setup holds its data set: keep few
def _built(key: CellKey) -> Setup:
    return Setup(key.cell)


#: The data sets in use, by their specs' keys.
_IN_USE: WeakValueDictionary[str, Dataset] = WeakValueDictionary()


def dataset_of(spec: Spec) -> Dataset:
    """The data set that a suite names, with its parameters; the same object as long as it is in use."""
    found = _IN_USE.get(spec.key)
    if found is None:
        found = _IN_USE[spec.key] = load_dataset(spec.name, **spec.params)
    return found


def forget_data() -> None:
    """Read every data set anew when it is needed next: files and given objects may have changed."""
    _IN_USE.clear()
    _built.cache_clear()


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    try:
        yield
    except FedGuardError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise
