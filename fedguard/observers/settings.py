"""Alerts from plain settings, as a guard's file gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import ParameterError
from ..core.params import check_params, nearest
from .alerts import Alerts
from .receivers import Command, Email, Receiver, Webhook

#: Keys that hold a receiver's parameters, or a list of such.
RECEIVERS: dict[str, Callable[..., Receiver]] = {"webhook": Webhook, "email": Email, "command": Command}


def alerts_from(settings: Any) -> Alerts:
    """The alerts that settings describe.

    Args:
        settings: a mapping: ``webhook``, ``email`` and ``command``, each with the parameters of a receiver or
            a list of such mappings, and the parameters of :class:`Alerts`.

    Raises:
        ParameterError: a key or a value is not valid; the message begins with its key path.

    Example:
        >>> from fedguard.observers.settings import alerts_from
        >>> alerts_from({"command": {"run": ["notify"]}, "on": ["ban"]}).receivers
        (Command(notify),)
    """
    if not isinstance(settings, Mapping):
        raise ParameterError(f"alerts: {settings!r} is not a mapping; write webhook, email or command")
    receivers: list[Receiver] = []
    for kind, make in RECEIVERS.items():
        given = settings.get(kind, [])
        for params in given if isinstance(given, list) else [given]:
            receivers.append(_receiver(kind, make, params))
    rest = {key: value for key, value in settings.items() if key not in RECEIVERS}
    unknown = [key for key in rest if key not in _OWN]
    if unknown:
        known = (*RECEIVERS, *_OWN)
        raise ParameterError(f"alerts: unknown key {unknown[0]!r}{nearest(str(unknown[0]), known)}")
    return Alerts(receivers, **check_params(Alerts, rest, "alerts", frozenset({"receivers"})))


_OWN = ("on", "share", "drift", "cosine", "limit", "period", "waiting")


def _receiver(kind: str, make: Callable[..., Receiver], params: Any) -> Receiver:
    if not isinstance(params, Mapping):
        # not shown: it may be an address that holds a secret
        raise ParameterError(f"alerts: {kind} is a mapping of its parameters, or a list of mappings")
    return make(**check_params(make, params, f"alerts: {kind}"))
