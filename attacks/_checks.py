"""Checks of parameters and client numbers that several attacks share."""

from __future__ import annotations

import math

from fedguard.core.errors import ParameterError


def require_positive(attack: str, parameter: str, value: float) -> None:
    """Refuse zero, negative and non-finite values.

    Raises:
        ParameterError: as said.
    """
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{attack}: {parameter} is {value}; use a finite number above 0")


def require_spread(attack: str, known: int, m: int) -> None:
    """Refuse an attacker who sees a single update: without a spread the attack would do nothing.

    Args:
        attack: its name.
        known: how many honest updates the attacker can look at.
        m: the number of malicious clients; 0 is fine, nobody attacks then.

    Raises:
        ParameterError: as said.
    """
    if m > 0 and known < 2:
        raise ParameterError(
            f"{attack}: the attacker sees {known} honest update(s), but needs at least 2 to know how far "
            "updates differ; use more clients or the other `knowledge`"
        )
