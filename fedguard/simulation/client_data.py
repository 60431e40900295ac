"""Training data of clients, poisoned once for all defenses, and the test set in batches."""

from __future__ import annotations

import functools
import hashlib

import torch
from filelock import FileLock
from safetensors.torch import load_file

from ..contracts.attack import Attack, DataView
from ..contracts.data import LabeledData, Samples, Share
from ..contracts.registry import REGISTRIES
from ..core.files import save_tensors
from ..core.seeds import generator
from ..training.parameters import batches
from .build import build_attack
from .keys import CellKey
from .pool import scratch
from .setup import Setup, setup_of


def training_data(key: CellKey, client: int, attacking: bool) -> LabeledData | Share:
    """A client's training data: its own samples, poisoned if it attacks and the attack poisons data."""
    if attacking and poisons_data(REGISTRIES["attacks"].get(key.cell.attack.name)):
        return poisoned_data(key.attack, client)
    setup = setup_of(key)
    return Share(setup.clients_data.training_set, setup.samples[client])


def poisons_data(attack: type[Attack]) -> bool:
    """Whether attacks of a class may change training data."""
    return attack.poison_data is not Attack.poison_data


@functools.lru_cache(maxsize=512)
def changes_data(key: CellKey, client: int) -> bool:
    """Whether the attack, which poisons data, changes anything about this client's data."""
    setup = setup_of(key)
    own = setup.dataset.labeled(setup.client_samples(client))
    return not all(map(torch.equal, own, poisoned_data(key.attack, client)))


def poisoned_data(key: CellKey, client: int) -> LabeledData:
    """The poisoned data of a client, made once for all defenses and all workers.

    Args:
        key: a :attr:`CellKey.attack`.
        client: a malicious client.
    """
    kept = _poisoned_by(key)
    if client not in kept:
        kept[client] = _made_once(key, client)
    return kept[client]


@functools.lru_cache(maxsize=4)  # copies of the malicious clients' data: keep few
def _poisoned_by(key: CellKey) -> dict[int, LabeledData]:
    """What has been poisoned so far, by client."""
    return {}


def _made_once(key: CellKey, client: int) -> LabeledData:
    """Poison the data of a client, or read what another worker has poisoned."""
    folder = scratch()
    if folder is None:
        return poison(key, client)
    path = folder / f"{hashlib.sha256(key.settings.encode()).hexdigest()}-{client}"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            save_tensors(poison(key, client)._asdict(), path)
        return LabeledData(**load_file(path))


def poison(key: CellKey, client: int, attack: Attack | None = None) -> LabeledData:
    """A client's data as the attack in its current state poisons them; a fresh attack if absent."""
    setup, attack = setup_of(key), attack or build_attack(key.cell)
    view = DataView(
        rank=sorted(setup.malicious).index(client),
        num_malicious=len(setup.malicious),
        num_classes=setup.dataset.num_classes,
        generator=generator(key.cell.seed, "attack data", client),
        everybody=_everybody(setup) if "data" in attack.knowledge else None,
    )
    samples = attack.poison_data(setup.client_samples(client), view)
    return setup.dataset.labeled(samples)


def _everybody(setup: Setup) -> Samples:
    own = [setup.client_samples(client) for client in range(len(setup.samples))]
    return Samples(torch.cat([part.pixels for part in own]), torch.cat([part.labels for part in own]))


def evaluation_batches(key: CellKey, targeted: bool) -> list[LabeledData]:
    """The test set in batches, or with ``targeted`` the samples and target labels of the attack's trial."""
    if targeted:
        return _trial_batches(key.attack)
    return _poisoned_test(key.attack) if poisons_test(key) else batches(setup_of(key).test)


def poisons_test(key: CellKey) -> bool:
    """Whether the attack may change the test set that accuracy is measured on."""
    return REGISTRIES["attacks"].get(key.cell.attack.name).poison_test is not Attack.poison_test


@functools.lru_cache(maxsize=4)
def _poisoned_test(key: CellKey) -> list[LabeledData]:
    setup = setup_of(key)
    data, share = setup.dataset, len(setup.malicious) / key.cell.clients
    draw = generator(key.cell.seed, "attack test data")
    found = build_attack(key.cell).poison_test(data.test, share, data.num_classes, draw)
    return batches(setup.test if found is data.test else data.labeled(found))


@functools.lru_cache(maxsize=4)
def _trial_batches(key: CellKey) -> list[LabeledData]:
    setup = setup_of(key)
    trial = build_attack(key.cell).trial(setup.dataset.test, setup.dataset.num_classes)
    if trial is None:
        return []
    return batches(LabeledData(setup.dataset.normalize(trial.samples.pixels), trial.target))
