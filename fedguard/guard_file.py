"""A guard from a file: its methods, and who is told about what it finds, in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .core.errors import ConfigError, FedGuardError
from .core.files import is_file
from .core.params import nearest
from .core.yaml_values import MAX_BYTES, Path_, parse
from .guard import Guard
from .judging.parts import built, several
from .judging.too_few import checked_choice
from .observers.settings import alerts_from

if TYPE_CHECKING:
    from .contracts.observer import Observer
    from .ledger.memory import Ledger

_KEYS = ("detectors", "policy", "aggregator", "stages", "on_too_few", "claim_limit", "device", "alerts")


def load_guard(
    path: Path | str,
    ledger: Ledger | None = None,
    observers: Sequence[Observer] = (),
    alerts: bool = True,
) -> Guard:
    """The guard that a YAML file describes.

    The file has the keys ``detectors``, ``policy``, ``aggregator``, ``stages``, ``on_too_few``,
    ``claim_limit`` and ``device``, each as :class:`Guard` takes it, and ``alerts``
    (:func:`fedguard.observers.settings.alerts_from`); all are optional. A name ``module:Class`` imports that
    module, so load only files that you trust.

    Args:
        path: the file.
        ledger: an existing ledger; by default a new one in memory.
        observers: notified of every round, before the alerts of the file.
        alerts: False leaves the file's alerts out, for example to try the guard on a recording.

    Raises:
        ConfigError: the file cannot be read, or a value is not valid; names the file, the line and the key.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fedguard import load_guard
        >>> path = Path(tempfile.mkdtemp()) / "guard.yaml"
        >>> _ = path.write_text("detectors: {name: krum, num_malicious: 2}\\npolicy: ban\\n")
        >>> load_guard(path)
        Guard(detectors=[Krum(num_malicious=2)], policy=Ban(), aggregation=[Mean()])
    """
    path = Path(path)
    values, lines = _read(path)

    def where(key: str) -> str:
        return f"{path}:{lines[(key,)]}: {key}"

    parts: dict[str, Any] = {}
    for key, value in values.items():
        if key not in _KEYS:
            raise ConfigError(f"{where(key)}: unknown{nearest(str(key), _KEYS)} (known: {', '.join(_KEYS)})")
        if key == "alerts" and not alerts:
            continue
        try:
            parts[key] = _part(key, value)
        except FedGuardError as error:
            raise ConfigError(f"{where(key)}: {error}") from None
    own = parts.pop("alerts", None)
    try:
        return Guard(**parts, ledger=ledger, observers=(*observers, *([own] if own else [])))
    except FedGuardError as error:
        raise ConfigError(f"{path}: {error}") from None


def _part(key: str, value: Any) -> Any:
    if value is None:
        return () if key in ("detectors", "stages") else None
    if key in ("detectors", "stages"):
        return several(value, key, key)
    if key == "policy":
        return built(value, "policies", key)
    if key == "aggregator":
        return built(value, "aggregators", key)
    if key == "on_too_few":
        return checked_choice(value)
    if key == "claim_limit" and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ConfigError(f"{value!r} is not a number")
    if key == "device" and not isinstance(value, str):
        raise ConfigError(f"{value!r} is not the name of a device")
    return alerts_from(value) if key == "alerts" else value


def _read(path: Path) -> tuple[dict[Any, Any], dict[Path_, int]]:
    try:
        if not is_file(path):
            raise ConfigError(f"{path}: there is no such file")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_BYTES >> 10} KiB; it is no guard's file")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    values, lines = parse(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: write keys with values, such as `detectors: krum`")
    return values, lines
