"""The numbers of the rounds that a guard judges: counted if left out, and never going back unnoticed."""

from __future__ import annotations

import dataclasses

from ..contracts.round import Round
from ..core.errors import RoundError
from ..ledger.memory import Ledger


def next_number(last: int | None, ledger: Ledger) -> int:
    """The number of the next round.

    Args:
        last: the last round that the guard has judged; None if it has judged none.
        ledger: what it knows of rounds before that, where a guard takes up another one's ledger.
    """
    return ledger.next_round() if last is None else last + 1


def numbered(round: Round, last: int | None, ledger: Ledger, repeat: bool = False) -> Round:
    """The round with its number: its own, or the next one if that was left out.

    Args:
        round: with a number or without.
        last: the last round that the guard has judged; None if it has judged none.
        ledger: see :func:`next_number`.
        repeat: the caller knows that this round may have been judged before; without a number of its own
            it is the last one again.

    Raises:
        RoundError: its number is not above ``last``, and it is no repeat.
    """
    if not round.numbered:
        upcoming = next_number(last, ledger)
        return dataclasses.replace(round, index=max(0, upcoming - 1) if repeat else upcoming)
    if last is not None and round.index <= last and not repeat:
        raise RoundError(
            f"round {round.index} does not follow: this guard has judged round {last} already. Leave `index` "
            f"out and the guard counts, give {last + 1} or more, or say repeat=True if a server that was "
            "restarted plays the round again"
        )
    return round
