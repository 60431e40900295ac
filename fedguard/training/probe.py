"""A linear probe on what low-rank adapters change: its file, and its features (detector ``lora_probe``)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.errors import ConfigError, ParameterError
from ..core.files import is_file, not_written, save_tensors, write_atomically
from ..geometry.updates import Updates
from .places import UP, Place

#: Norms below it count as zero.
SMALLEST = 1e-12
#: Starts whose matrices A have a smaller cosine are different ones. Independent starts have one near 0.
SAME_START = 0.5
#: The most numbers of a probe's file, its starts included: 1 GiB.
MOST = 2**28
_WEIGHT, _START, _BIAS = "weight/", "start/", "bias"
HOW = "`fedguard probe RECORDING… --out FILE` trains one from recorded simulations"


@dataclass(frozen=True, eq=False)
class Probe:
    """P(harmful) = σ(⟨w, x⟩ + b) of a client's feature x.

    Attributes:
        weight: w by parameter, each in its parameter's shape.
        bias: b.
        start: the matrices A at the start of the federation that it was trained on, by parameter; may be
            empty, and is then not compared.
        about: JSON values about its training.
    """

    weight: Mapping[str, Tensor]
    bias: float
    start: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, features: Tensor) -> Tensor:
        """(n,) float64 P(harmful) of (n, k) features."""
        weight = torch.cat([self.weight[name].flatten() for name in sorted(self.weight)])
        # row by row, so that a client's bits do not depend on its position
        return torch.sigmoid((features * weight.to(features)).sum(1) + self.bias)

    def save(self, path: Path | str) -> None:
        """Write it as a safetensors file, atomically.

        Raises:
            ConfigError: the name does not end in .safetensors, or the file cannot be written.
        """
        out = Path(path)
        if out.suffix != ".safetensors":
            raise ConfigError(f"cannot write {out}: use a name that ends in .safetensors")
        tensors = {_BIAS: torch.tensor([self.bias], dtype=torch.float64)}
        for prefix, part in ((_WEIGHT, self.weight), (_START, self.start)):
            tensors |= {prefix + name: value.float().contiguous() for name, value in part.items()}
        try:
            about = {"fedguard probe": json.dumps(dict(self.about))}
            write_atomically(out, lambda fresh: save_tensors(tensors, fresh, about))
        except OSError as error:
            raise ConfigError(not_written(out, error)) from None


def load_probe(path: str) -> Probe:
    """Read a file that :meth:`Probe.save` wrote. Nothing of it is run.

    Raises:
        ParameterError: it cannot be read, or is no probe.
    """
    where = Path(path).expanduser()
    if not is_file(where):
        raise ParameterError(f"lora_probe: there is no file {path}; {HOW}")
    try:
        with safe_open(where, "pt") as file:
            names = list(file.keys())
            if sum(math.prod(file.get_slice(name).get_shape()) for name in names) > MOST:
                raise ValueError(f"it holds more than {MOST:,} numbers")
            tensors = {name: file.get_tensor(name) for name in names}
            about = json.loads((file.metadata() or {}).get("fedguard probe", "{}"))
        return _checked(_under(tensors, _WEIGHT), tensors.get(_BIAS), _under(tensors, _START), dict(about))
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise ParameterError(f"lora_probe: {path} is no probe: {error}; {HOW}") from None


def probe_of(parts: Mapping[str, Any]) -> Probe:
    """A probe that is written out: ``weight`` by parameter, ``bias``, and perhaps ``start`` by parameter.

    Raises:
        ParameterError: something is missing, is no number, or is not finite.
    """
    try:
        unknown = parts.keys() - {"weight", "bias", "start"}
        if unknown:
            raise ValueError(f"unknown key {min(unknown)!r} (known: weight, bias, start)")
        weight, start = (
            {str(name): torch.tensor(value, dtype=torch.float64) for name, value in given.items()}
            for given in (parts["weight"], parts.get("start", {}))
        )
        return _checked(weight, torch.tensor([float(parts["bias"])], dtype=torch.float64), start, {})
    except (LookupError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ParameterError(f"lora_probe: probe: {what}; {HOW}") from None


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _checked(
    weight: dict[str, Tensor], bias: Tensor | None, start: dict[str, Tensor], about: dict[str, Any]
) -> Probe:
    if not weight or bias is None or bias.numel() != 1:
        raise ValueError("it needs a weight for at least one parameter, and one bias")
    for name, part in {_BIAS: bias, **weight, **start}.items():
        if not part.is_floating_point() or part.numel() == 0 or not bool(part.isfinite().all()):
            raise ValueError(f"{name[:80]} is not made of finite numbers")
    double = ({name: part.double() for name, part in given.items()} for given in (weight, start))
    return Probe(next(double), float(bias), next(double), about)


def first_layer(names: Mapping[str, Any]) -> list[str]:
    """The names of all matrices B of the first layer, sorted: of the lowest first number in a name.

    Adapters without a number in their names come before all others.

    Raises:
        ParameterError: there is no adapter.
    """
    ups = [name for name in names if UP in name]
    if not ups:
        raise ParameterError("lora_probe: the model has no adapters (no parameter lora_B); set its `lora`")
    layer = {name: next((int(part) for part in name.split(".") if part.isdecimal()), -1) for name in ups}
    lowest = min(layer.values())
    return sorted(name for name in ups if layer[name] == lowest)


def features(updates: Updates, where: Mapping[str, Place], names: list[str]) -> Tensor:
    """(n, k) float64: ΔB of the named matrices, flattened, one after the other, of length 1.

    An update of length below 1e-12 stays as it is; NaN becomes 0.
    """
    parts = [updates.between(where[name].span).matrix.double() for name in names]
    whole = torch.cat(parts, 1).nan_to_num(nan=0.0)
    norms: Tensor = whole.norm(dim=1, keepdim=True)
    return whole.div(norms.masked_fill(norms < SMALLEST, 1.0))


def matrices(names: Iterable[str], params: Tensor, where: Mapping[str, Place]) -> dict[str, Tensor]:
    """The named matrices of a flat vector, in float64."""
    return {name: params[where[name].span].view(where[name].shape).double() for name in names}


def likeness(start: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The cosine of two starts, which hold the same matrices A."""
    there, here = (torch.cat([part[name].cpu().flatten() for name in start]) for part in (start, other))
    scale = float(here.norm() * there.norm())
    return float(here @ there) / scale if scale > 0 else 0.0
