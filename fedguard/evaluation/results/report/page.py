"""``fedguard report``: one HTML file that holds everything, pictures included, and loads no other file."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import ConfigError, FedGuardError, ParameterError
from ....core.files import not_written, write_file
from ...suites.load import load_suite
from ...suites.suite import Suite
from ..data import named, stored_data
from ..figures import confusion, pareto
from ..figures.curves import curves as curves_picture
from ..figures.heatmap import heatmap
from ..figures.picture import Picture
from ..figures.ranks import critical_difference
from ..figures.roc import roc
from ..figures.scores import scores
from ..figures.seconds import seconds
from ..figures.skew_share import skew_share
from ..figures.style import COLORS, DASHES
from ..figures.svg import STRIPED, drawing, swatch
from ..figures.timelines import timelines
from ..figures.who_sees_what import who_sees_what
from ..glossary import GLOSSARY
from ..names import names_of
from ..ranks import ranking
from ..store import Store
from ..tables import SHOWN, Column, Marks, columns_named, defined, mark, shown
from ..versus import chosen_runs
from .answer import answers
from .results import HEATS, Line, Panel, Section, costs, curves, heat_maps, plural, sections
from .scores import distribution, roc_panel, verdicts
from .timeline import timeline

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Template

#: Limits of a report, so that browsers can open the report of a large suite.
MAX_SECTIONS = 12
MAX_DETAILS = 160
MAX_VERDICTS = 100  # details with verdicts by round, which their timelines also show
MAX_ROWS = 4000
MAX_PANELS = 60
MAX_FAILURES = 50
#: Longer tables are collapsed, attack by attack.
LONG_TABLE = 80


def write_report(folder: Path, out: Path | None = None, where: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a results folder.

    Args:
        folder: what ``fedguard evaluate`` wrote, finished or not.
        out: the file; ``report.html`` in the folder if absent.
        where: keeps only runs with these values: setting → value or list of values.

    Returns:
        The file.

    Raises:
        ResultsError: the folder holds no finished run.
        ParameterError: there is no such setting, or nothing is left.
        ConfigError: the file cannot be written.
    """
    text = render(Store(folder), where)
    path = out or folder / "report.html"
    try:
        write_file(path, text)
    except OSError as error:
        raise ConfigError(not_written(path, error)) from None
    return path


def render(store: Store, where: Mapping[str, Any] | None = None) -> str:
    """The report as HTML, see :func:`write_report`."""
    return _template().render(**_contents(store, where))


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedguard.evaluation.results.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plural=plural, drawing=drawing, swatch=swatch)
    script = f"\n{_script()}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(
        glossary=GLOSSARY,
        script=script,
        script_hash=f"sha256-{digest}",  # the only script a browser runs, whatever a name holds
    )
    environment.globals.update(colors=COLORS, dashes=DASHES, striped=STRIPED)
    return environment.get_template("report.html")


def _script() -> str:
    """The script that sorts and filters tables."""
    return resources.files(__package__).joinpath("templates/tables.js").read_text(encoding="utf-8")


def _contents(store: Store, where: Mapping[str, Any] | None) -> dict[str, Any]:
    parts = sections(store, where)
    shown_parts = parts[:MAX_SECTIONS]
    failures = [failure for part in parts for failure in _failures(part)]
    left_out = [
        f"the pictures of {plural(len(parts) - MAX_SECTIONS, 'further section')}; choose with --where"
    ] * (len(parts) > MAX_SECTIONS)
    allowed = max(1, MAX_DETAILS // len(shown_parts))
    return {
        "about": _about(store),
        "terms": _terms(parts),
        "where": where or {},
        "sections": [_section(store, part, allowed, f"s{i}") for i, part in enumerate(shown_parts, start=1)],
        "shares": _shares(store, where) if len(parts) > 1 else [],
        "further": [_plain(part) for part in parts[MAX_SECTIONS:]],
        "left_out": left_out,
        "failures": failures[:MAX_FAILURES],
        "more_failures": max(0, len(failures) - MAX_FAILURES),
        "long_table": LONG_TABLE,
    }


def _shares(store: Store, where: Mapping[str, Any] | None) -> list[Picture]:
    """AUROC by partition and share of malicious clients, if the grid varies these and nothing else."""
    with contextlib.suppress(ParameterError):
        return [skew_share(chosen_runs(store, where), names_of(store.folder))]
    return []


def _terms(parts: list[Section]) -> list[Column]:
    """The columns to explain: the default ones, and those that only some results have."""
    default = columns_named(SHOWN)
    more = [column for part in parts for column in defined(part.frame, default) if column not in default]
    return [*default, *dict.fromkeys(more)]


# ---------------------------------------------------------------- the suite


def _about(store: Store) -> dict[str, Any]:
    plan = _plan(store)
    finished = store.finished()
    done = sum(status == "done" for status in finished.values())
    return {
        "name": plan.name if plan else store.folder.absolute().name,
        "summary": plan.summary if plan else "",
        "text": (store.folder / "suite.yaml").read_text(encoding="utf-8") if plan else "",
        "code": store.code,
        "data": [(named(key), value[:12]) for key, value in stored_data(store).items()],
        "facts": _facts(plan.model_dump(mode="json")) if plan else [],
        "done": done,
        "failed": len(finished) - done,
        "missing": max(0, len(plan.cells()) - len(finished)) if plan else None,
    }


def _plan(store: Store) -> Suite | None:
    """The suite; None if its file is missing or cannot be read."""
    try:
        return load_suite(store.folder / "suite.yaml")[0]
    except FedGuardError:
        return None


def _facts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings of the federation as text."""

    def spec(value: Any) -> str:
        if not isinstance(value, dict):
            return str(value)
        params = ", ".join(f"{k} = {v}" for k, v in value.items() if k != "name" and v is not None)
        name = str(value.get("name", ""))
        return f"{name} ({params})" if name and params else name or params

    told = settings["assumed_malicious"]
    facts = {
        **{name: spec(settings[name]) for name in ("data", "partition", "model", "clients")},
        "malicious clients": spec(settings["malicious"]),
        "told to defenses": "the same" if told is None else spec(told),
        "rounds": spec(settings["rounds"]),
        "clients per round": f"{100 * settings['participation']:g} %",
        **{name: spec(settings[name]) for name in ("training", "server")},
        "attacks": _names(settings["attacks"]),
        "defenses": _names(settings["defenses"]),
        "seeds": _names(settings["seeds"]),
        "mode": settings["mode"],
    }
    words = {"malicious": "malicious clients", "participation": "clients per round"}
    for path, values in settings["grid"].items():
        facts[words.get(path, path)] = f"{', '.join(spec(value) for value in values)} (grid)"
    return list(facts.items())


def _names(labeled: Any) -> str:
    names = [str(name) for name in labeled]
    return ", ".join(names) if len(names) <= 12 else str(len(names))


def _failures(part: Section) -> list[dict[str, str]]:
    """The failed runs of a section; seeds with the same last line of their errors form one entry."""
    failed = part.runs[part.runs["status"] == "failed"]
    seeds: dict[tuple[str, str, str], list[str]] = {}
    for _, run in failed.iterrows():
        error = (str(run["error"] or "").strip().splitlines() or ["no error recorded"])[-1]
        seeds.setdefault((run["attack"], run["defense"], error), []).append(str(run["seed"]))
    return [
        {"attack": a, "defense": d, "error": e, "seeds": ", ".join(found), "place": part.place}
        for (a, d, e), found in seeds.items()
    ]


# ---------------------------------------------------------------- sections


def _section(store: Store, part: Section, allowed: int, place: str) -> dict[str, Any]:
    chosen = _chosen(part, allowed)
    panels, details = [], []
    for attack in part.attacks:
        tables = list(verdicts(store, part, attack))
        panels.append(roc_panel(part, attack, tables))
        curve = {line.name: line for line in panels[-1].lines}
        by_round = len(chosen) <= MAX_VERDICTS
        details += [
            _detail(part, attack, d, t, curve.get(d), by_round) for d, t in tables if (attack, d) in chosen
        ]
    words = {"tacc": "test accuracy", "asr": "attack success"}
    moving = [curves_picture(curves(store, part, m), what, part.seeds) for m, what in words.items()]
    first = [who_sees_what(part), pareto.trade_off_of_rates(part), pareto.trade_off_of_costs(store, part)]
    return {
        **_plain(part),
        "answers": answers(part),
        "first": _with_plots(first),
        "heats": [(heatmap(chart), GLOSSARY[chart.column.name]) for chart in heat_maps(part, HEATS)],
        "ranks": _ranks(part),
        "curves": [one.only(MAX_PANELS) for one in _with_plots([*moving, roc(panels, part.seeds)])],
        "panels_left_out": max(0, len(part.attacks) - MAX_PANELS),
        "costs": _with_plots([seconds(costs(store, part))]),
        "details": details,
        "open": next((i for i, detail in enumerate(details) if detail["curved"]), 0),
        "details_left_out": _detecting(part) - len(details),
    }


def _with_plots(found: list[Picture]) -> list[Picture]:
    return [picture for picture in found if picture.plots]


def _ranks(part: Section) -> list[Picture]:
    """Critical-difference diagrams of detection and of accuracy, where there is something to rank."""
    found = []
    for column in columns_named(("dacc", "tacc")):
        with contextlib.suppress(ParameterError):
            ranked = ranking(part.runs[part.runs["status"] == "done"], column)
            found.append(critical_difference(ranked, ranked.names))
    return found


def _plain(part: Section) -> dict[str, Any]:
    frame = part.frame.head(MAX_ROWS)
    first = frame.iloc[0]
    columns = defined(frame, columns_named(SHOWN))
    by_attack = frame.groupby("attack", sort=False)
    return {
        "title": part.title,
        "shadow": part.mode == "shadow",
        "seeds": part.seeds,
        "clients": int(first["clients"]),
        "told": int(first["assumed_malicious"]),
        "columns": columns,
        "groups": [_group(rows, str(attack), columns, part.marks) for attack, rows in by_attack],
        "rows": len(frame),
        "rows_left_out": len(part.frame) - len(frame),
    }


def _group(rows: pd.DataFrame, attack: str, columns: list[Any], found: Marks) -> dict[str, Any]:
    """The summary of one attack: a line per defense, a (text, mark) per metric."""
    lines = []
    for index, row in rows.iterrows():
        cells = []
        for column in columns:
            known = not math.isnan(row[column.name])
            rounds = column.name in ("dacc", "fpr", "fnr") and row["basis"] == "rounds"
            text = f"{'~' if rounds else ''}{shown(row, column)}" if known else ""
            cells.append((text, found.get((index, column.name))))
        lines.append((row["defense"], mark(row), cells))
    return {"attack": attack, "malicious": int(rows.iloc[0]["malicious"]), "lines": lines}


def _fact(title: str, text: str) -> str:
    return f"{title.removesuffix(' %')} {text}{' %' if title.endswith(' %') else ''}"


def _detecting(part: Section) -> int:
    done = part.frame["seeds"] > part.frame["failed"]
    return int((done & part.frame["basis"].fillna("").ne("")).sum())


def _chosen(part: Section, allowed: int) -> set[tuple[str, str]]:
    """Attacks and defenses with details: all, or for each attack the defenses with the highest DACC."""
    frame = part.frame[part.frame["basis"].fillna("") != ""]
    if len(frame) > allowed:
        best = frame.sort_values("dacc", ascending=False, kind="stable")
        frame = best.groupby("attack", sort=False).head(max(1, allowed // len(part.attacks))).head(allowed)
    return {(row["attack"], row["defense"]) for _, row in frame.iterrows()}


def _detail(
    part: Section, attack: str, defense: str, table: pd.DataFrame, curve: Line | None, by_round: bool
) -> dict[str, Any]:
    row = part.row(attack, defense)
    runs = part.runs[(part.runs["attack"] == attack) & (part.runs["defense"] == defense)]
    spread = distribution(table, runs.iloc[0]["settings"])
    history = timeline(table)
    shares = defined(row.to_frame().T, columns_named(("dacc", "fpr", "fnr", "auroc")))
    facts = [_fact(c.title, shown(row, c)) for c in shares]
    drawn = []
    if spread:
        drawn.append(scores([(attack, defense, spread)]))
    if curve:  # solid, in the first color
        alone = roc([Panel(attack, [replace(curve, rank=0)])], part.seeds)
        drawn.append(
            replace(alone, title=f"ROC curve; AUROC {shown(row, columns_named(('auroc',))[0])}", keys=())
        )
    if by_round:
        drawn += _with_plots([confusion.confusion([(attack, defense, confusion.shares(table))], part.seeds)])
    if history:
        drawn.append(timelines([(attack, defense, history)]))
    return {
        "attack": attack, "defense": defense, "facts": facts, "scored": spread is not None,
        "curved": curve is not None, "pictures": drawn,
    }  # fmt: skip
