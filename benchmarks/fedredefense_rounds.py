"""Rounds to compare variants of FedREDefense on: every attack over the same honest updates.

The federation is that of the paper, Section 5.1.4 and Appendix A.5 (100 clients, 28 of them malicious,
Dirichlet β = 0.1, Table 5's network, one local epoch at learning rate 0.001). Everybody is honest during the
warm-up, and nobody is excluded; in the last round the malicious clients attack, each attack in a round of its
own. So all attacks share the honest updates, and a warm-up of 0 gives a first round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedguard import Round, Server
from fedguard.contracts.attack import Attack
from fedguard.simulation.federation import Federation
from fedguard.simulation.pool import Workers
from fedguard.simulation.settings import AttackSpec, Cell, Defense, Spec, TrainingSettings

#: The paper's seven, with the variants of NDSS 2021, then those that the paper does not try.
ATTACKS: dict[str, dict[str, Any]] = {
    "fang": {"name": "fang_trimmed_mean"},
    "lie": {"name": "lie"},
    "min_max": {"name": "min_max"},
    "min_sum": {"name": "min_sum"},
    "mpaf": {"name": "mpaf"},
    "scaling": {"name": "scaling_backdoor"},
    "dba": {"name": "dba"},
    "min_max_unit": {"name": "min_max", "perturbation": "unit"},
    "min_max_sign": {"name": "min_max", "perturbation": "sign"},
    "min_sum_unit": {"name": "min_sum", "perturbation": "unit"},
    "fang_median": {"name": "fang_median"},
    "agr_median": {"name": "agr_tailored", "aggregator": "median"},
    "ipm": {"name": "ipm"},
    "gaussian": {"name": "gaussian"},
    "random": {"name": "byzantine", "mode": "random"},
    "sign_flip": {"name": "byzantine", "mode": "flip"},
    "model_replacement": {"name": "model_replacement"},
    "label_flip": {"name": "label_flip"},
    "label_flip_next": {"name": "label_flip", "mode": "next"},
}
#: Scaled, sign-flipped or trained on changed labels: products of training, which FedREDefense lets pass.
GENUINE = ("sign_flip", "model_replacement", "label_flip", "label_flip_next")


@dataclass(frozen=True)
class Scene:
    """A federation up to the round in which it is attacked.

    Attributes:
        history: the rounds of the warm-up, everybody honest.
        honest: the last round, everybody honest.
        attacks: attack → (m, d) what the malicious clients send instead in the last round.
        malicious: (m,) their positions.
    """

    history: list[Round]
    honest: Round
    attacks: dict[str, Tensor]
    malicious: Tensor

    def attacked(self, attack: str) -> Round:
        """The last round under one attack; ``none`` for the honest one."""
        if attack == "none":
            return self.honest
        updates = self.honest.updates.matrix.clone()
        updates[self.malicious] = self.attacks[attack]
        return self.honest.with_updates(updates)


def cell(data: str, seed: int, rounds: int, attack: dict[str, Any] | None = None) -> Cell:
    """The paper's federation on a data set."""
    return Cell(
        data=Spec(name=data),
        partition=Spec(name="dirichlet", beta=0.1),
        model=Spec(name="fedredefense_fmnist_cnn"),
        clients=100,
        malicious=28,
        rounds=rounds,
        training=TrainingSettings(epochs=1, batch_size=32, lr=0.001),
        attack_label="",
        attack=AttackSpec(**(attack or {"name": "none"})),
        defense_label="",
        defense=Defense(),
        seed=seed,
    )


def scene(data: str, seed: int, warm_up: int, folder: Path, keep: int = 0, workers: int = 4) -> Scene:
    """The scene, from the folder if it was made before.

    Args:
        data: data set.
        seed: seed of the federation.
        warm_up: rounds of honest training before the attacked one.
        folder: where scenes are kept.
        keep: how many of the last rounds of the warm-up to keep as history.
        workers: processes to train with.
    """
    file = folder / f"{data}-{seed}-{warm_up}-{keep}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with Workers(workers) as pool:
            save_file(_make(data, seed, warm_up, keep, pool), file)
    return _read(load_file(file), cell(data, seed, warm_up + 1))


def _make(data: str, seed: int, warm_up: int, keep: int, pool: Workers) -> dict[str, Tensor]:
    base = Federation(cell(data, seed, warm_up + 1), pool.map)
    parts: dict[str, Tensor] = {}
    for index in range(warm_up):
        round_ = base.advance(index).round
        if round_ is not None and index >= warm_up - keep:
            parts |= {f"updates {index}": round_.updates.matrix, f"start {index}": round_.global_params}
    asked = base.clients
    honest = base._train(asked, set(), warm_up)
    malicious = sorted(base.setup.malicious)
    parts |= {
        f"updates {warm_up}": honest.updates,
        f"start {warm_up}": base.params,
        "malicious": torch.tensor(malicious),
    }
    for label, spec in ATTACKS.items():
        federation = Federation(cell(data, seed, warm_up + 1, spec), pool.map)
        federation.params, federation.previous_params = base.params, base.previous_params
        updates = honest.updates.clone()
        kind = type(federation.attack)
        if kind.poison_data is not Attack.poison_data or kind.adjust is not Attack.adjust:
            updates[malicious] = federation._train(malicious, set(malicious), warm_up).updates
        sent, _ = federation._craft(honest._replace(updates=updates), set(malicious), warm_up)
        parts[f"attack {label}"] = sent.matrix[malicious].contiguous()
    return {name: part.contiguous() for name, part in parts.items()}


def _read(parts: dict[str, Tensor], settings: Cell) -> Scene:
    setup = Federation(settings).setup
    indices = sorted(int(name.split()[1]) for name in parts if name.startswith("updates"))
    rounds = [
        Round(
            parts[f"updates {index}"],
            index=index,
            global_params=parts[f"start {index}"],
            server=setup.server(),
        )
        for index in indices
    ]
    attacks = {name[7:]: part for name, part in parts.items() if name.startswith("attack")}
    return Scene(rounds[:-1], rounds[-1], attacks, parts["malicious"])


def with_map(round_: Round, map: Any) -> Round:
    """The same round, its server's work run by ``map``."""
    return dataclasses.replace(round_, server=dataclasses.replace(round_.server or Server(), map=map))


def every(scene_: Scene) -> Iterator[tuple[str, Round]]:
    """(label, round) for no attack and each attack."""
    yield "none", scene_.honest
    for label in scene_.attacks:
        yield label, scene_.attacked(label)
