"""Checks of parameters and client numbers that several attacks share."""

from __future__ import annotations

import math

from fedguard.core.errors import ParameterError


def require_positive(attack: str, parameter: str, value: float) -> None:
    """Refuse zero, negative and non-finite values.

    Raises:
        ParameterError: the value is not a positive finite number.
    """
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{attack}: {parameter} is {value}; use a finite number above 0")


def require_spread(attack: str, known: int, m: int) -> None:
    """Refuse an attacker that sees a single update: without a spread the attack has no effect.

    Args:
        attack: its name.
        known: the number of honest updates that the attacker sees.
        m: the number of malicious clients; 0 is allowed, since there is no attack then.

    Raises:
        ParameterError: there are attackers, and they see fewer than 2 updates.
    """
    if m > 0 and known < 2:
        raise ParameterError(
            f"{attack}: the attacker sees {known} honest update(s), but needs at least 2 to know how far "
            "updates differ; use more clients or the other `knowledge`"
        )
