"""The settings of one simulated federation, checked by pydantic."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..contracts.local_training import LocalTraining
from ..core.device_names import PATTERN
from ..judging.too_few import OnTooFew
from .base import Model
from .specs import (
    MAX_CLIENTS,
    MAX_COUNT,
    MAX_ROUNDS,
    ShortDetector,
    ShortSpec,
    listed,
    resolved,
)
from .specs import AttackSpec as AttackSpec
from .specs import Spec as Spec


class Defense(Model):
    """The defense between the clients and the global model.

    Attributes:
        detector: one detector, a list of them, or nothing.
        policy: how scores become decisions; by default "exclude" with a detector, else "observe".
        stages: transformations of the updates before the aggregator and of the aggregate after it, in order.
        aggregator: the aggregation rule.
        on_too_few: what to do if fewer clients are left than a method needs: "keep_global", "mean",
            "median" or "error", see :class:`fedguard.Guard`.
        flcert: train several global models on groups of clients, and let them vote; each group has its
            own guard.
    """

    detector: Annotated[list[ShortDetector], BeforeValidator(listed)] = Field([])
    policy: Annotated[ShortSpec, resolved("policies")] | None = None
    stages: Annotated[list[Annotated[ShortSpec, resolved("stages")]], BeforeValidator(listed)] = Field([])
    aggregator: Annotated[ShortSpec, resolved("aggregators")] = Spec(name="mean")
    on_too_few: OnTooFew | None = None
    flcert: FLCertSettings | None = None


class FLCertSettings(Model):
    """FLCert: several global models, each trained by a group of clients, predict by majority vote.

    Attributes:
        groups: how many global models, N.
        mode: "disjoint" splits the clients into N groups (FLCert-D); "random" draws ``size`` clients for each
            group (FLCert-P), so a client may be in several groups or in none.
        size: clients per group, with mode "random" only.
    """

    groups: int = Field(ge=1, le=MAX_CLIENTS)
    mode: Literal["disjoint", "random"] = "disjoint"
    size: int | None = Field(None, ge=1, le=MAX_CLIENTS)

    @model_validator(mode="after")
    def _size_goes_with_random(self) -> FLCertSettings:
        if (self.mode == "random") != (self.size is not None):
            raise ValueError("mode 'random' and `size`, the clients per group, go together")
        return self


class ServerSettings(Model):
    """The server's data and its optimizer.

    Attributes:
        validation: how many training samples the server keeps to measure models with (ERR, LFR); clients do
            not get them.
        root: how many it keeps to train on (FLTrust).
        lr: the global model moves by lr × the aggregate.
        optimizer: how it moves: "sgd" (FedAvg, FedSGD), "momentum" (FedAvgM), or FedOpt's "adagrad",
            "adam" and "yogi", see :class:`fedguard.ServerOptimizer`.
        beta1: momentum, except for sgd and adagrad.
        beta2: second momentum, for adam and yogi.
        tau: degree of adaptivity of the adaptive ones; keeps their divisions finite.
    """

    validation: int = Field(0, ge=0, le=MAX_COUNT)
    root: int = Field(0, ge=0, le=MAX_COUNT)
    lr: float = Field(1.0, gt=0)
    optimizer: Literal["sgd", "momentum", "adagrad", "adam", "yogi"] = "sgd"
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.99, ge=0, lt=1)
    tau: float = Field(1e-3, gt=0)


#: How local updates are made and put together.
Algorithm = Literal["fedavg", "fedsgd", "fedprox", "fednova", "scaffold"]
#: FedProx's μ if no other is given; its authors try 0.001 to 1.
FEDPROX_MU = 0.01


class TrainingSettings(Model):
    """Local training: SGD for some epochs, or for some steps, or any other optimizer.

    For the meaning of each setting see :class:`fedguard.contracts.local_training.LocalTraining`.

    Attributes:
        algorithm: "fedavg"; "fedsgd": one step on all of a client's data, whatever ``epochs``, ``steps`` and
            ``batch_size`` say; "fedprox": ``proximal`` is its μ, 0.01 if it is 0; "fednova": the mean of a
            defense becomes the aggregator fednova; "scaffold": control variates, see
            :class:`fedguard.simulation.scaffold.ControlVariates`.
    """

    epochs: int | None = Field(None, ge=1, le=MAX_COUNT)
    steps: int | None = Field(None, ge=1, le=MAX_COUNT)
    batch_size: int = Field(32, ge=1, le=MAX_COUNT)
    lr: float = Field(0.01, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    proximal: float = Field(0.0, ge=0)
    wbc: float = Field(0.0, ge=0)
    algorithm: Algorithm = "fedavg"
    optimizer: ShortSpec = Spec(name="sgd")
    scheduler: ShortSpec | None = None
    lr_schedule: Literal["constant", "cosine"] = "constant"
    lr_decay: float = Field(1.0, gt=0, le=1)
    lr_min: float = Field(0.0, ge=0)
    loss: ShortSpec | None = None
    clip: float = Field(0.0, ge=0)
    patience: int = Field(0, ge=0, le=MAX_COUNT)
    holdout: float = Field(0.1, gt=0, lt=1)
    augment: Annotated[list[ShortSpec], BeforeValidator(listed)] = Field([])

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSettings:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give either epochs or steps, not both")
        return self if self.epochs or self.steps else self.model_copy(update={"epochs": 1})

    @model_validator(mode="after")
    def _algorithm_fits(self) -> TrainingSettings:
        if self.algorithm == "scaffold":
            plain = self.optimizer == Spec(name="sgd") and self.scheduler is None
            if not plain or self.momentum or self.proximal or self.wbc:
                raise ValueError(
                    "scaffold is defined for plain SGD: leave optimizer, scheduler, momentum, proximal and "
                    "wbc out"
                )
        return self

    def local(self, loss: str) -> LocalTraining:
        """What clients do; ``loss`` is that of the data's task, used if no other is given."""
        values = self.model_dump(exclude={"algorithm"})
        if self.algorithm == "fedsgd":
            values.update(epochs=None, steps=1, batch_size=MAX_COUNT)
        if self.algorithm == "fedprox":
            values["proximal"] = self.proximal or FEDPROX_MU
        return LocalTraining(**{**values, "loss": values["loss"] or loss})


class Settings(Model):
    """The settings of a federation except the attack, the defense and the seed.

    Attributes:
        data: data set, see ``fedguard list datasets``.
        partition: how clients get their samples, see ``fedguard list partitions``.
        model: the model, see ``fedguard list models``; a library's or one's own.
        clients: the number of clients.
        malicious: how many of them are malicious; the truth, known to metrics and the attacker only.
        assumed_malicious: the number that a defense is told; ``malicious`` if absent.
        rounds: the number of training rounds.
        participation: the share of clients asked in each round.
        malicious_per_round: how many of those asked are malicious, exactly; as chance has it if absent. Once
            fewer of either kind are left, because they are banned, a round has fewer of them.
        dropout: the share of those asked that send nothing, on average; at least one client sends.
        late: the share of those asked whose update arrives in the next round, on average. It is relative to
            the older global model, and its client is not asked in the next round. After the last round it
            is lost.
        test_every: test the global model after every so many rounds, and after the last one; in between
            accuracy, loss and attack success are NaN.
        training: local training.
        server: the server's data and its optimizer.
        recording: the folder of a recording that replaces the federation.
        device: where models train and are tested, attacks craft and the guard judges: cpu, cuda, cuda:1, mps,
            or auto, see :func:`fedguard.core.devices.resolve_device`. Other devices give other bits.
    """

    data: ShortSpec = Spec(name="digits")
    partition: ShortSpec = Spec(name="iid")
    model: ShortSpec = Spec(name="logistic_regression")
    clients: int = Field(20, ge=1, le=MAX_CLIENTS)
    malicious: int = Field(0, ge=0)
    assumed_malicious: int | None = Field(None, ge=0)
    rounds: int = Field(10, ge=1, le=MAX_ROUNDS)
    participation: float = Field(1.0, gt=0, le=1)
    malicious_per_round: int | None = Field(None, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    late: float = Field(0.0, ge=0, lt=1)
    test_every: int = Field(1, ge=1, le=MAX_COUNT)
    training: TrainingSettings = TrainingSettings(epochs=1)
    server: ServerSettings = ServerSettings()
    recording: str | None = None
    device: str = Field("cpu", pattern=PATTERN)

    @model_validator(mode="after")
    def _counts(self) -> Settings:
        for name in ("malicious", "assumed_malicious"):
            value = getattr(self, name)
            if value is not None and value >= self.clients:
                raise ValueError(f"{name} is {value}, but there are only {self.clients} clients")
        return self

    @model_validator(mode="after")
    def _per_round(self) -> Settings:
        fixed, most = self.malicious_per_round, min(self.malicious, self.participants)
        if fixed is not None and fixed > most:
            raise ValueError(
                f"malicious_per_round is {fixed}, but there are {self.malicious} malicious clients and "
                f"{self.participants} take part"
            )
        if fixed is not None and self.participants - fixed > self.clients - self.malicious:
            raise ValueError(
                f"malicious_per_round is {fixed} of {self.participants} that take part, but only "
                f"{self.clients - self.malicious} clients are honest; lower `participation`"
            )
        if self.late and self.training.algorithm == "scaffold":
            raise ValueError("scaffold needs every update in its own round: leave `late` out")
        return self

    @property
    def assumed(self) -> int:
        """The number of malicious clients that defenses are told."""
        return self.malicious if self.assumed_malicious is None else self.assumed_malicious

    @property
    def participants(self) -> int:
        """How many clients take part per round as long as none is banned."""
        return max(1, round(self.participation * self.clients))

    @property
    def senders(self) -> int:
        """The fewest updates that a round may have as long as no client is banned."""
        missing = math.ceil(self.dropout * self.participants) + math.ceil(self.late * self.participants)
        return max(1, self.participants - missing)

    @property
    def assumed_per_round(self) -> int:
        """The expected share of ``assumed`` in one round, rounded up."""
        if self.malicious_per_round is not None and self.assumed_malicious is None:
            return self.malicious_per_round
        return -(-self.assumed * self.participants // self.clients)

    @property
    def malicious_in_round(self) -> int:
        """How many malicious clients a round may be expected to have."""
        fixed = self.malicious_per_round
        return -(-self.malicious * self.participants // self.clients) if fixed is None else fixed

    def tests_after(self, index: int) -> bool:
        """Whether the global model is tested after this round."""
        return (index + 1) % self.test_every == 0 or index == self.rounds - 1


#: "closed": the defense acts. "shadow": it watches a federation without defenses. "recorded": it watches
#: a recording.
Mode = Literal["closed", "shadow", "recorded"]


class Cell(Settings):
    """One run: a federation with one attack, one defense and one seed.

    Attributes:
        attack_label: the attack's label in the suite.
        attack: the attack and its schedule.
        defense_label: the defense's label in the suite.
        defense: the defense.
        mode: whether the defense acts or only watches.
        seed: the seed of all randomness.
        point: its point in the suite's grid: key path → value.
    """

    attack_label: str
    attack: AttackSpec
    defense_label: str
    defense: Defense
    mode: Mode = "closed"
    seed: int
    point: dict[str, Any] = Field(default_factory=dict)

    @property
    def group_size(self) -> int:
        """The clients of the smallest group with its own guard: all clients, except under FLCert."""
        flcert = self.defense.flcert
        return self.clients if flcert is None else flcert.size or self.clients // flcert.groups

    def shrunk_to(self, clients: int) -> Cell:
        """The same run for a part of the clients, with a proportional number of malicious ones."""
        if clients == self.clients:
            return self
        share = {
            name: min(clients - 1, -(-getattr(self, name) * clients // self.clients))
            for name in ("malicious", "assumed")
        }
        changes = {"malicious": share["malicious"], "assumed_malicious": share["assumed"]}
        return self.model_copy(update={"clients": clients, **changes})

    @property
    def key(self) -> str:
        """A short hash of everything that determines the results."""
        plain = {"device"} if self.device == "cpu" else set()
        settings = self.model_dump(mode="json", exclude={"attack_label", "defense_label", "point"} | plain)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
