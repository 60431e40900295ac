"""Round numbers: counted by the guard if they are not given, and strictly increasing unless repeated."""

from __future__ import annotations

import dataclasses

from ..contracts.round import Round
from ..core.errors import RoundError
from ..ledger.memory import Ledger


def next_number(last: int | None, ledger: Ledger) -> int:
    """The number of the next round.

    Args:
        last: the last round that the guard has judged; None if it has judged none.
        ledger: gives the number if ``last`` is None: another guard may have used it before.
    """
    return ledger.next_round() if last is None else last + 1


def numbered(round: Round, last: int | None, ledger: Ledger, repeat: bool = False) -> Round:
    """The round with a number: its own, or the next one if it has none.

    Args:
        round: with or without a number.
        last: the last round that the guard has judged; None if it has judged none.
        ledger: see :func:`next_number`.
        repeat: the round may have been judged before. Without a number, it is the last round again.

    Raises:
        RoundError: its number is not above ``last``, and ``repeat`` is False.
    """
    if not round.numbered:
        upcoming = next_number(last, ledger)
        return dataclasses.replace(round, index=max(0, upcoming - 1) if repeat else upcoming)
    if last is not None and round.index <= last and not repeat:
        raise RoundError(
            f"round {round.index} does not follow: this guard has already judged round {last}. Omit `index` "
            f"to let the guard count, use {last + 1} or more, or pass repeat=True if a restarted server "
            "repeats the round"
        )
    return round
