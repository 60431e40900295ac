"""Train the probe of the detector ``lora_probe`` on recorded simulations, whose attackers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...core.errors import ConfigError, ResultsError
from ...core.named_code import find_here, refuse_code
from ...recording import Recording
from ...recording.index import INDEX
from ...simulation.recorded import Roster, cell_of
from ...simulation.setup import setup_for
from ...training.places import DOWN, UP, Place, places
from ...training.probe import (
    SAME_START,
    Probe,
    features,
    first_layer,
    likeness,
    matrices,
)
from ...training.probe_fit import fit_probe

#: The threshold that the summary counts at, the detector's default.
THRESHOLD = 0.8


@dataclass(frozen=True, eq=False)
class TrainedProbe:
    """A probe, and how it does on the updates that it was trained on.

    Attributes:
        probe: the probe; ``probe.save(path)`` writes it.
        labels: (m,) bool, which updates were malicious.
        harmful: (m,) P(harmful) of each.
    """

    probe: Probe
    labels: Tensor
    harmful: Tensor

    def __str__(self) -> str:
        """The lines that the command prints."""
        about, flagged = self.probe.about, self.harmful >= THRESHOLD
        counts = [f"{int(flagged[kind].sum())} of {int(kind.sum())}" for kind in (self.labels, ~self.labels)]
        return (
            f"trained on {len(self.labels)} updates of {about['recordings']} recordings: {about['epochs']} "
            f"epochs, validation loss {about['loss']:.3f}\n"
            f"P(harmful) from {THRESHOLD:g} on these: {counts[0]} malicious updates, {counts[1]} honest ones"
        )


@dataclass(frozen=True, eq=False)
class _Samples:
    """What a recording holds: features, labels, and where the federation started."""

    names: list[str]
    shapes: list[tuple[int, ...]]
    features: Tensor
    labels: Tensor
    start: dict[str, Tensor]


def train_probe(recordings: Sequence[Path | str], seed: int = 0, allow_code: bool = False) -> TrainedProbe:
    """Train a probe on all usable updates of some recorded simulations.

    An update is malicious if its client attacked in that round; malicious clients that wait train honestly.

    Args:
        recordings: folders that ``fedguard evaluate --record`` wrote, of one model and one start.
        seed: of the training.
        allow_code: import classes (``module:Class``) that a recording names.

    Raises:
        ConfigError: there is no recording.
        ResultsError: one is live (its attackers are not known), damaged, of another model or another start,
            or lacks layers.
        ParameterError: the model has no adapters, or too few updates are of one kind.
    """
    if not recordings:
        raise ConfigError("name at least one recording")
    parts = [_samples(Recording(folder), allow_code) for folder in recordings]
    for folder, part in zip(recordings[1:], parts[1:], strict=True):
        _refuse_other(folder, recordings[0], part, parts[0])
    whole, labels = torch.cat([p.features for p in parts]), torch.cat([p.labels for p in parts])
    fit = fit_probe(whole, labels, seed)
    first = parts[0]
    pieces = torch.split(fit.weight, [torch.Size(shape).numel() for shape in first.shapes])
    weight = {n: w.view(s) for n, w, s in zip(first.names, pieces, first.shapes, strict=True)}
    about = {
        "recordings": len(parts),
        "updates": len(labels),
        "malicious": int(labels.sum()),
        "seed": seed,
        "epochs": fit.epochs,
        "loss": fit.loss,
    }
    probe = Probe(weight, fit.bias, first.start, about)
    return TrainedProbe(probe, labels, probe(whole))


def _samples(recording: Recording, allow_code: bool) -> _Samples:
    folder = recording.folder
    cell = cell_of(recording)
    if cell is None:
        raise ResultsError(
            f"{folder} is a live recording: a probe needs to know who attacked; record simulations"
        )
    settings = recording.index.about["cell"]
    if not allow_code:
        refuse_code(settings, folder / INDEX, ("about", "cell"))
    find_here(settings)
    if recording.index.keep is not None:
        raise ResultsError(f"{folder} holds only the layers {recording.index.keep!r}; record all of them")
    problems = recording.check()
    if problems:
        raise ResultsError(problems[0])
    model, roster = setup_for(cell).model, Roster(recording)
    rows, labels, start = [], [], dict[str, Tensor]()
    where, names = dict[str, Place](), list[str]()
    for recorded in recording:
        round = recorded.round
        if not names:
            where = places(model, round.updates.d)
            names = first_layer(where)
            start = _start(round.global_params, where, names)
        attacking = set(recorded.remarks.get("attacking", ()))
        if round.usable.any():
            usable = round.take(round.usable.nonzero()[0])
            rows.append(features(usable.updates, where, names))
            labels += [roster.number(client) in attacking for client in usable.client_ids]
    if not rows:
        raise ResultsError(f"{folder} holds no update")
    shapes = [tuple(where[name].shape) for name in names]
    return _Samples(names, shapes, torch.cat(rows), torch.tensor(labels), start)


def _start(params: Tensor | None, where: dict[str, Place], names: list[str]) -> dict[str, Tensor]:
    """The matrices A beside the named B of the first recorded global model."""
    downs = [name.replace(UP, DOWN) for name in names]
    if params is None or any(name not in where for name in downs):
        return {}
    return matrices(downs, params, where)


def _refuse_other(folder: Path | str, first: Path | str, part: _Samples, known: _Samples) -> None:
    if (part.names, part.shapes) != (known.names, known.shapes):
        raise ResultsError(
            f"{folder} is of another model than {first}: their adapters differ; train one probe each"
        )
    if not known.start or not part.start:
        return
    alike = likeness(known.start, part.start)
    if alike < SAME_START:
        raise ResultsError(
            f"{folder} starts from other adapters than {first}: the matrices A have a cosine of {alike:.2f}; "
            "give the model a `seed`, and record again"
        )
