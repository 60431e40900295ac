"""``fedguard watch``: show the current round of an event stream on the terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..core.errors import DataError
from ..evaluation.terminal import number, plain, terminal
from ..observers.tail import Tail

_LEVELS = "▁▂▃▄▅▆▇█"
_BAR = 16


def watch(path: Path, once: bool, rows: int | None = None) -> None:
    """Show the latest round of an event stream, and follow it unless ``once``.

    Raises:
        DataError: the stream holds no round (with ``once``), or the file cannot be read.
    """
    console, tail = terminal(), Tail(path)
    if once:
        if not tail.read():
            raise DataError(f"{path} holds no round; run a guard with observers=[EventLog({str(path)!r})]")
        console.print(frame(tail.rounds, rows or 20))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        live.update(Text(f"waiting for the first round in {plain(path)} (Ctrl-C ends)"), refresh=True)
        for rounds in _follow(tail):
            live.update(frame(rounds, rows or max(3, console.height - 9)), refresh=True)


def _follow(tail: Tail, pause: float = 0.3) -> Iterator[deque[dict[str, Any]]]:
    while True:
        if tail.read():
            yield tail.rounds
        time.sleep(pause)


def frame(rounds: deque[dict[str, Any]], rows: int) -> Group:
    """Draw the latest round: a headline, the most suspicious clients, and the global model's drift."""
    event = rounds[-1]
    parts: list[Any] = [_headline(event), _clients(event, rows)]
    left = len(event["verdicts"]) - rows
    if left > 0:
        parts.append(Text(f"and {left} more clients", style="dim"))
    parts.append(_drift(rounds))
    if event["note"]:
        parts.append(Text(plain(event["note"]), style="bold red"))
    return Group(*parts)


def _headline(event: dict[str, Any]) -> Text:
    seconds = sum(s for s in event["seconds"].values() if isinstance(s, float))
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f"round {event['round']}", style="bold")
    text.append(f"  {event['time'][11:19]} UTC, {seconds:.2f} s  {event['clients']} clients, ")
    text.append(_count(event["suspects"], "suspect"), style="yellow" if event["suspects"] else "")
    text.append(", ")
    text.append(f"{len(event['banned'])} banned", style="red" if event["banned"] else "")
    if event["new_bans"]:
        text.append(f" (new: {plain(', '.join(map(str, event['new_bans'])))})", style="red")
    return text


def _clients(event: dict[str, Any], rows: int) -> Table:
    scores = {id(v): _score(v["score"]) for v in event["verdicts"]}
    finite = [s for s in scores.values() if math.isfinite(s)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    order = sorted(event["verdicts"], key=lambda v: (not v["suspect"], v["banned"], -_rank(scores[id(v)])))
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("client", width=min(24, max(6, *(len(plain(v["id"])) for v in order[:rows]))))
    table.add_column("score", width=_BAR)
    table.add_column("", width=9, justify="right")
    table.add_column("verdict", width=7)
    table.add_column("weight", width=6, justify="right")
    table.add_column("reason", ratio=1, no_wrap=True, overflow="ellipsis")
    for v in order[:rows]:
        score = scores[id(v)]
        style = "red" if v["banned"] else "yellow" if v["suspect"] else ""
        standing = "banned" if v["banned"] else "suspect" if v["suspect"] else ""
        bar = Text(_bar(score, low, high), style=style or "green")
        weight = f"{v['weight']:.2g}"
        table.add_row(
            plain(v["id"], 24), bar, number(score), standing, weight, plain(v["reason"]), style=style
        )
    return table


def _drift(rounds: deque[dict[str, Any]]) -> Text:
    drift = rounds[-1]["drift"]
    norms = [_score(event["drift"]["norm"]) for event in rounds]
    cosine = "–" if drift["cosine"] is None else f"{_score(drift['cosine']):+.2f}"
    text = Text("drift  ", style="dim")
    text.append(f"‖aggregate‖ {number(norms[-1])}, cosine to the last {cosine}  ", style="not dim")
    text.append(spark(norms), style="not dim cyan")
    return text


def spark(values: list[float]) -> str:
    """Draw a line of small bars, the highest for the largest finite value."""
    top = max((v for v in values if math.isfinite(v)), default=0.0)
    levels = [v / top if math.isfinite(v) and top > 0 else float(v == math.inf) for v in values]
    return "".join(_LEVELS[min(len(_LEVELS) - 1, int(level * len(_LEVELS)))] for level in levels)


def _bar(score: float, low: float, high: float) -> str:
    """Draw a bar: one cell for the round's lowest finite score, full for the highest and for +Inf."""
    if math.isnan(score):
        return ""
    if math.isinf(score):
        return "█" * _BAR if score > 0 else "█"
    share = (score - low) / (high - low) if high > low else 0.0
    return "█" * (1 + round(share * (_BAR - 1)))


def _score(value: float | str | None) -> float:
    return math.nan if value is None else float(value)


def _rank(score: float) -> float:
    return -math.inf if math.isnan(score) else score


def _count(items: list[Any], what: str) -> str:
    return f"{len(items)} {what}{'s' * (len(items) != 1)}"
