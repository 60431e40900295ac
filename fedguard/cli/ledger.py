"""``fedguard ledger``: inspect a durable ledger, ban and unban clients, export it."""

from __future__ import annotations

import getpass
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ..core.ids import ClientId
    from ..ledger.sqlite import SQLiteLedger

app = typer.Typer(
    no_args_is_help=True, help="Inspect a durable ledger, ban, unban and forget clients, export it."
)

Db = Annotated[Path, typer.Argument(metavar="DB", help="The ledger's file.")]
Client = Annotated[str, typer.Argument(help="The client's id.")]
By = Annotated[str, typer.Option(help="Who decides; your login name by default.")]
Why = Annotated[str, typer.Option(help="The reason; it is recorded.")]


@app.command()
def show(
    db: Db,
    client: Annotated[str | None, typer.Argument(help="One client; all by default.")] = None,
    banned: Annotated[bool, typer.Option("--banned", help="Only clients whose ban is in force.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 50,
) -> None:
    """Show bans and strikes; for one client, also the rounds, scores and reasons behind them."""
    ledger = _open(db)
    if client is None:
        _print(*_overview(ledger, banned, limit))
    else:
        _print(*_story(ledger, _known(ledger, client), limit))


@app.command()
def ban(
    db: Db,
    client: Client,
    why: Why,
    by: By = "",
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds it lasts; for good by default.")] = None,
) -> None:
    """Ban a client from the next round on, even one that was never seen."""
    from ..ledger.operate import ban_by_hand

    status = ban_by_hand(_open(db, write=True), client, _who(by), _reason(why), rounds)
    typer.echo(f"client {client} is {status}; guards respect it in their next round")


@app.command()
def unban(db: Db, client: Client, why: Why, by: By = "") -> None:
    """Lift a client's ban and forgive its strikes; records who decided and why."""
    ledger = _open(db, write=True)
    ledger.unban(_known(ledger, client), _who(by), _reason(why))
    typer.echo(
        f"client {client} is unbanned and its strikes are forgiven; guards respect it in their next round"
    )


@app.command()
def forget(db: Db, client: Client, why: Why, by: By = "") -> None:
    """Erase a client's verdicts and scores; bans stay. Records who decided and why."""
    ledger = _open(db, write=True)
    erased = ledger.forget(_known(ledger, client), _who(by), _reason(why))
    typer.echo(
        f"{erased} verdict{'s' * (erased != 1)} of client {client} erased; the record of it and bans stay. "
        "Event logs, recordings and copies of the ledger are files of their own"
    )


@app.command()
def export(
    db: Db,
    what: Annotated[str, typer.Option(help="CSV table: clients, verdicts or actions.")] = "clients",
    format: Annotated[str, typer.Option("--format", "-f", help="csv or json (everything).")] = "csv",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output by default.")
    ] = None,
) -> None:
    """Write the ledger as CSV (one table) or JSON (everything)."""
    from ..core.errors import ParameterError
    from .common import write

    tables = {"clients": _client_rows, "verdicts": _verdict_rows, "actions": _action_rows}
    if what not in tables or format not in ("csv", "json"):
        raise ParameterError(f"no {what} as {format}; there are {', '.join(tables)} as csv, and json")
    ledger = _open(db)
    if format == "json":
        text = json.dumps({name: rows(ledger) for name, rows in tables.items()}, indent=1) + "\n"
    else:
        text = _csv(tables[what](ledger))
    write(text.encode(), out)


def _open(path: Path, write: bool = False) -> SQLiteLedger:
    from ..core.errors import LedgerError
    from ..core.files import is_file
    from ..ledger.operate import writable
    from ..ledger.sqlite import SQLiteLedger

    if write and not is_file(path):
        raise LedgerError(f"ledger {path}: there is no such file; a guard with this ledger creates it")
    return writable(path) if write else SQLiteLedger(path, read_only=True)


def _known(ledger: SQLiteLedger, client: str) -> ClientId:
    """Return the client id as stored, an integer or text."""
    from ..core.errors import ParameterError
    from ..core.params import nearest

    ids = {str(known): known for known in ledger.clients()}
    if client not in ids:
        raise ParameterError(f"ledger {ledger.path} knows no client {client!r}{nearest(client, ids)}")
    return ids[client]


def _who(by: str) -> str:
    from ..core.errors import ParameterError

    try:
        who = by.strip() or getpass.getuser()
    except (KeyError, OSError):
        raise ParameterError("your login name is unknown; give --by to say who decides") from None
    return who


def _reason(why: str) -> str:
    from ..core.errors import ParameterError

    if not why.strip():
        raise ParameterError("--why is empty; give the reason in words")
    return why.strip()


def _overview(ledger: SQLiteLedger, banned: bool, limit: int) -> list[Any]:
    from ..evaluation.terminal import number, plain
    from ..ledger.operate import standing

    index, records = ledger.next_round(), ledger.records()
    out = sum(record.is_banned(index) for _, record in records)
    rows = [(c, r) for c, r in records if r.is_banned(index) or not banned]
    rows.sort(key=lambda row: (not row[1].is_banned(index), -len(row[1].strikes)))
    table = _table("client", "rounds>", "strikes>", "last score>", "standing", "why")
    for client, record in rows[:limit]:
        cells = (record.rounds, len(record.strikes), number(record.last_score), standing(record, index))
        table.add_row(plain(client, 40), *map(str, cells), plain(record.ban_reason))
    rounds = "no round yet" if index == 0 else f"judged up to round {index - 1}"
    head = f"{plain(ledger.path)}: {len(records)} clients, {out} banned, {rounds}"
    more = [f"{len(rows) - limit} more; --limit shows them"] if len(rows) > limit else []
    return [head, table, *more] if rows else [head]


def _story(ledger: SQLiteLedger, client: ClientId, limit: int) -> list[Any]:
    """Return a client's standing with its reasons, then its verdicts as a table."""
    from ..evaluation.terminal import number, plain
    from ..ledger.memory import GUARD
    from ..ledger.operate import standing

    record, judgements, actions = ledger[client], ledger.judgements(client), ledger.actions(client)
    lines = [f"client {plain(client)} is {standing(record, ledger.next_round())}."]
    if record.ban_reason:
        last = next((a for a in reversed(actions) if a.what == "ban"), None)
        by = f" ({'by the guard, ' if last.by == GUARD else ''}{plain(last.time)})" if last else ""
        lines.append(f"Why: {plain(record.ban_reason)}{by}.")
    done = {"unban": "Unbanned", "forget": "Verdicts erased"}
    lines += [
        f"{done[a.what]} in round {a.since} by {plain(a.by)}, {plain(a.time)}: {plain(a.why)}."
        for a in actions
        if a.what in done
    ]
    struck = [j for j in judgements if j.suspect]
    lines.append(
        f"Judged in {record.rounds} round{'s' * (record.rounds != 1)}; a strike in {len(struck)} of the "
        f"{len(judgements)} on record{_span([j.round for j in struck])}."
    )
    table = _table("round>", "score>", "strike", "reason")
    for j in judgements[-limit:]:  # a suspect may get no strike, for example when most clients are suspects
        strike = "forgiven" if j.forgiven else "strike" if j.suspect else "–"
        table.add_row(str(j.round), number(j.score), strike, plain(j.reason))
    return ["\n".join(lines), table] if judgements else ["\n".join(lines)]


def _span(rounds: list[int]) -> str:
    if not rounds:
        return ""
    shown = ", ".join(map(str, rounds[-10:]))
    return f" (round{'s' * (len(rounds) > 1)} {'…, ' if len(rounds) > 10 else ''}{shown})"


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table()
    for name in columns:
        right = name.endswith(">")
        table.add_column(name.rstrip(">"), justify="right" if right else "left", overflow="fold")
    return table


def _print(*parts: Any) -> None:
    from ..evaluation.terminal import terminal

    console = terminal()
    for part in parts:
        console.print(part)


def _json(score: float | None) -> float | str | None:
    """A score as a JSON value: null for none, "inf" for an unusable update."""
    if score is None or math.isnan(score):
        return None
    return "inf" if math.isinf(score) else score


def _client_rows(ledger: SQLiteLedger) -> list[dict[str, Any]]:
    index = ledger.next_round()
    return [
        {
            "client": client,
            "rounds": r.rounds,
            "strikes": len(r.strikes),
            "last_score": _json(r.last_score),
            "banned": r.is_banned(index),
            "banned_since": r.banned_since,
            "banned_until": r.banned_until,
            "judged_since_ban": None if r.banned_since is None else r.judged_since_ban,
            "ban_reason": r.ban_reason,
        }
        for client, r in ledger.records()
    ]


def _verdict_rows(ledger: SQLiteLedger) -> list[dict[str, Any]]:
    return [
        {"client": client, **j._asdict(), "score": _json(j.score)}
        for client in ledger.clients()
        for j in ledger.judgements(client)
    ]


def _action_rows(ledger: SQLiteLedger) -> list[dict[str, Any]]:
    return [action._asdict() for action in ledger.actions()]


def _csv(rows: list[dict[str, Any]]) -> str:
    import csv
    import io

    from ..evaluation.cells import csv_cell
    from ..evaluation.terminal import plain

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: csv_cell(plain(v)) if isinstance(v, str) else v for k, v in row.items()})
    return text.getvalue()
