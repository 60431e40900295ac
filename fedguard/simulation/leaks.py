"""Passive attacks inside a federation: the server, or whoever listens, reconstructs clients' data.

Nothing here changes the federation: a run has the same bits as one without an attack.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..contracts.round import Round
from ..core.devices import on_cpu
from ..core.errors import ParameterError
from ..core.seeds import generator
from ..core.threads import single_thread
from ..passive import Leak, PassiveAttack, measure
from ..training.local import visited
from ..training.parameters import load_statistics
from .build import build_attack
from .datasets import Dataset
from .keys import CellKey
from .participation import Call
from .setup import setup_of
from .victims import Victims

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, client, round, FedNova's steps, (d,) start, (s,) statistics, (d,) update)
LeakJob: TypeAlias = "tuple[CellKey, int, int, float, _Array, _Array, _Array]"


def leak_jobs(
    key: CellKey, received: Round, called: Call, index: int, start: Tensor, statistics: Tensor
) -> list[LeakJob]:
    """One piece of work for every victim of a round.

    Late updates, which start from an older model, and unusable ones have no victims.

    Args:
        key: the cell, whose attack is passive.
        received: the round as the server received it, before any defense.
        called: who trained in it.
        index: the round.
        start: (d,) the global model that it started from.
        statistics: (s,) that model's statistics.
    """
    rows = {c: i for i, c in enumerate(called.sending) if c in called.training and received.usable[i]}
    chosen = _victims(key).draw(list(rows), key.cell.seed, index)
    before, own, places = start.numpy(), statistics.numpy(), [rows[client] for client in chosen]
    updates = on_cpu(received.updates.take(places).matrix).numpy()
    each = zip(chosen, received.num_steps[places], updates, strict=True)
    return [(key, client, index, float(steps), before, own, update) for client, steps, update in each]


def leak_job(job: LeakJob) -> dict[str, float]:
    """Reconstruct one client's data, and compare them with the samples that its update was computed from."""
    key, client, index, steps, start, statistics, update = job
    cell, setup = key.cell, setup_of(key)
    attack = build_attack(cell)
    if not isinstance(attack, PassiveAttack):
        raise ParameterError(f"attack {attack.name} is not passive: it reconstructs nothing")
    data, training = setup.dataset, setup.training.in_round(index, cell.rounds)
    rows = visited(setup.samples[client], training, generator(cell.seed, "batches", index, client))
    truth = setup.clients_data.train.take(rows)
    model = copy.deepcopy(setup.model)
    load_statistics(model, torch.from_numpy(statistics.copy()))
    leak = Leak(
        model=model.eval(),
        global_params=torch.from_numpy(start.copy()),
        update=torch.from_numpy(update.copy()),
        input_shape=data.input_shape,
        num_classes=data.num_classes,
        count=_victims(key).samples or len(rows),
        gradient_scale=training.lr * steps,
        bounds=input_bounds(data),
        generator=generator(cell.seed, "leak attack", index, client),
        training=training,
    )
    with single_thread():  # the same bits here and in a worker
        found = attack.reconstruct(leak)
    if found.inputs is None:
        return measure(found, None, truth.pixels, truth.labels)
    draw = generator(cell.seed, "leak guess", index, client)
    guess = torch.rand((leak.count, *data.input_shape), generator=draw)
    noise = measure(found, guess, truth.pixels, truth.labels)
    metrics = measure(found, input_pixels(data, found.inputs), truth.pixels, truth.labels)
    return metrics | {f"noise_{name}": noise[name] for name in ("psnr", "ssim")}


def _victims(key: CellKey) -> Victims:
    return key.cell.attack.victims or Victims()


def mean_leak(leaks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure over victims or rounds; without those that are undefined everywhere."""
    names = dict.fromkeys(name for leak in leaks for name in leak)
    known = {name: [v for leak in leaks if not math.isnan(v := leak.get(name, math.nan))] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items() if values}


def input_bounds(data: Dataset) -> tuple[Tensor, Tensor]:
    """The model's inputs for a black and a white pixel."""
    black, white = (data.normalize(torch.full((1, *data.input_shape), value)) for value in (0.0, 1.0))
    return black, white


def input_pixels(data: Dataset, inputs: Tensor) -> Tensor:
    """The model's inputs as pixels in [0, 1]."""
    shape = (-1,) + (1,) * (inputs.ndim - 2)
    mean, std = (inputs.new_tensor(part).view(shape) for part in (data.mean, data.std))
    return (inputs * std + mean).clamp(0, 1)
