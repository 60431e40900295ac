"""The file of one round: tensors, and everything else as JSON in its metadata."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..contracts.local_training import LocalTraining
from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server
from ..core.errors import FedGuardError, ParameterError, ResultsError
from ..core.files import is_file, save_tensors
from ..core.named_code import code_in
from .index import Precision
from .words import Words

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: The errors that reading a hostile file can raise.
_UNREADABLE = (
    SafetensorError,
    FedGuardError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,  # raised by torch, and for nesting too deep
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True, eq=False)
class Recorded:
    """One round of a recording.

    Attributes:
        round: what the guard received: all clients, in order, with the server's seed and settings. Updates
            that were unusable are unusable again, for the same reason. With ``keep``, updates and global
            parameters hold only the kept layers.
        scores: (n,) the guard's scores, see :class:`fedguard.Outcome`.
        by_detector: the scores of each detector.
        weights: (n,) the weight of each client.
        suspects: (n,) bool.
        banned: (n,) bool, clients whose ban was in force from this round on.
        barred: (n,) bool, clients banned before this round; no detector scored them.
        reasons: one phrase per client.
        note: the outcome's note.
        remarks: what the recorder added, such as labels in a simulation.
        counted: (n,) the share of each client's claimed samples that counted, see :class:`fedguard.Outcome`.
    """

    round: Round
    scores: NDArray[np.float64]
    by_detector: Mapping[str, NDArray[np.float64]]
    weights: NDArray[np.float64]
    suspects: NDArray[np.bool_]
    banned: NDArray[np.bool_]
    barred: NDArray[np.bool_]
    reasons: tuple[str, ...]
    note: str
    remarks: Mapping[str, Any]
    counted: NDArray[np.float64]


def kept_columns(round: Round, keep: str | None, layers: Mapping[str, int] | None) -> slice | Tensor:
    """Return which of the d parameters to record.

    Raises:
        ParameterError: the layers are unknown, do not add up to d, or none matches the pattern.
    """
    if keep is None:
        return slice(None)
    if layers is None and round.server is not None and round.server.model is not None:
        layers = {name: p.numel() for name, p in round.server.model.named_parameters()}
    if layers is None:
        raise ParameterError(
            f"keep is {keep!r}, but the layers are unknown; give the recorder `layers` (name → size), or "
            "the round a Server(model=…)"
        )
    if sum(layers.values()) != round.updates.d:
        raise ParameterError(f"the layers have {sum(layers.values())} parameters, updates {round.updates.d}")
    wanted = [
        torch.full((size,), fnmatch.fnmatchcase(name, keep), dtype=torch.bool)
        for name, size in layers.items()
    ]
    columns = torch.cat(wanted).nonzero().flatten()
    if len(columns) == 0:
        raise ParameterError(f"keep is {keep!r}, which no layer matches; there are {', '.join(layers)}")
    return columns


def save_round(
    path: Path,
    round: Round,
    outcome: Outcome,
    columns: slice | Tensor,
    dtype: Precision,
    remarks: Mapping[str, Any],
) -> None:
    """Write one round. Does not copy a float32 matrix if all layers are kept."""
    tensors = {
        **_updates(round.updates.matrix.cpu()[:, columns], dtype),
        "num_examples": torch.from_numpy(round.num_examples.copy()),
        "num_steps": torch.from_numpy(round.num_steps.copy()),
    }
    if round.global_params is not None:
        tensors["global_params"] = round.global_params.cpu()[columns].contiguous()
    for name in ("scores", "weights", "suspects", "banned", "barred"):
        tensors[name] = torch.from_numpy(np.array(getattr(outcome, name)))
    if outcome.counted is not None and (outcome.counted < 1).any():
        tensors["counted"] = torch.from_numpy(np.array(outcome.counted))
    for name, scores in outcome.by_detector.items():
        tensors[f"scores/{name}"] = torch.from_numpy(np.array(scores))
    server = round.server or Server()
    words = {
        "index": round.index,
        "client_ids": list(round.client_ids),
        "problems": list(round.problems),
        "reasons": list(outcome.reasons),
        "note": outcome.note,
        "seed": None if round.server is None else server.seed,
        "input_shape": None if server.input_shape is None else list(server.input_shape),
        "num_classes": server.num_classes,
        "training": None if server.training is None else _settings(server.training),
        "remarks": dict(remarks),
    }
    save_tensors(tensors, path, metadata={"fedguard": json.dumps(words)})


def _updates(matrix: Tensor, dtype: Precision) -> dict[str, Tensor]:
    """With float16, divide each row by its largest absolute value, so that small updates keep precision."""
    if dtype == "float32":
        return {"updates": matrix.contiguous()}
    scale = torch.ones(len(matrix))
    half = torch.empty(matrix.shape, dtype=torch.float16)
    for i, row in enumerate(matrix):
        largest = row.abs().max()
        if largest.isfinite() and largest > 0:
            scale[i] = largest
        half[i] = row / scale[i]
    return {"updates": half, "scale": scale}


def load_round(path: Path) -> Recorded:
    """Read a file that :func:`save_round` wrote.

    Raises:
        ResultsError: the file is cut short, or is not a round of a recording.
    """
    with _opened(path) as file:
        words = _words(file)
        _check_shapes(file, len(words["client_ids"]))
        # clones are aligned as any tensor is, so sums give the same bits as in the live round
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return _recorded(tensors, words)


def load_words(path: Path) -> dict[str, Any]:
    """Read a round's file without its tensors."""
    with _opened(path) as file:
        return _words(file)


def _words(file: Any) -> dict[str, Any]:
    return Words.model_validate(json.loads(file.metadata()["fedguard"])).plain()


#: The allowed tensor types, by safetensors' names.
_TYPES = {
    "updates": ("F32", "F16"),
    "global_params": ("F32",),
    **dict.fromkeys(("suspects", "banned", "barred"), ("BOOL",)),
    **dict.fromkeys(("scores", "weights", "counted", "num_examples", "num_steps"), ("F64",)),
    "scale": ("F32",),
}


def _check_shapes(file: Any, n: int) -> None:
    """Refuse tensors of types or shapes that a recorder does not write, before reading any of them."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    d = slices["updates"].get_shape()[-1]
    shapes = {"updates": [n, d], "global_params": [d]}
    for name, part in slices.items():
        types = ("F64",) if name.startswith("scores/") else _TYPES.get(name)
        if types is None or part.get_dtype() not in types or part.get_shape() != shapes.get(name, [n]):
            raise ValueError(
                f"its tensor {name[:60]!r} is {part.get_dtype()} of shape {part.get_shape()[:9]}"
            )
    missing = _TYPES.keys() - slices.keys() - {"global_params", "scale", "counted"}
    if missing or d == 0:
        raise ValueError(f"it has no {min(missing, default='parameters')}")


def _settings(training: LocalTraining) -> dict[str, Any]:
    """Its fields; those that earlier versions do not know only if they are not at their default."""
    known = ("epochs", "steps", "batch_size", "lr", "momentum", "weight_decay", "proximal", "wbc")
    fields = {field.name: field.default for field in dataclasses.fields(training)}
    values = dataclasses.asdict(training)
    return {name: values[name] for name, usual in fields.items() if name in known or values[name] != usual}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.is_symlink() or not is_file(path):  # reading a pipe, say, would never end
        raise ResultsError(f"{path} is no file of a recording, or is missing")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ResultsError(f"{path} is no round of a recording: {where} {problem['msg']}") from None
    except _UNREADABLE as error:
        raise ResultsError(f"{path} is cut short, or no round of a recording: {error}") from None


def _recorded(tensors: dict[str, Tensor], words: dict[str, Any]) -> Recorded:
    updates = tensors["updates"].float()
    if "scale" in tensors:
        updates *= tensors["scale"][:, None]
    shape, training = words["input_shape"], words["training"]
    if any(code_in(training)):  # a stranger's file must not choose what is imported: give a server instead
        training = None
    server = Server(
        input_shape=None if shape is None else tuple(shape),
        num_classes=words["num_classes"],
        training=None if training is None else LocalTraining(**training),
        seed=words["seed"] or 0,
    )
    round = Round(
        updates,
        words["client_ids"],
        tensors["num_examples"].numpy(),
        words["index"],
        tensors.get("global_params"),
        None if words["seed"] is None else server,
        tensors["num_steps"].numpy(),
        words["problems"],
    )
    arrays = {name: tensors[name].numpy() for name in ("scores", "weights", "suspects", "banned", "barred")}
    weights = arrays["weights"]
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("a weight is negative or not finite")
    counted = tensors["counted"].numpy() if "counted" in tensors else np.ones(round.n)
    if not ((counted > 0) & (counted <= 1)).all():
        raise ValueError("a share of claimed samples is not in (0, 1]")
    by_detector = {
        n.removeprefix("scores/"): t.numpy() for n, t in tensors.items() if n.startswith("scores/")
    }
    return Recorded(
        round,
        by_detector=by_detector,
        reasons=tuple(words["reasons"]),
        note=str(words["note"]),
        remarks=dict(words["remarks"]),
        counted=counted,
        **arrays,
    )
