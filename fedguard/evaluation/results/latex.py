"""A table for a paper: LaTeX with booktabs, ready to be included with ``\\input``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..terminal import plain
from .marks import marked
from .names import display, display_all, names_of
from .paired import EQUAL_NEEDED
from .tables import UNDEFINED, Column, Mark, Marks, columns_named, defined, show, shown

if TYPE_CHECKING:
    import pandas as pd

    from .layout import Layout
    from .store import Store

#: How a mark is set.
STYLES: Mapping[Mark, str] = {"best": r"\textbf{%s}", "second": r"\underline{%s}"}
ARROWS = {"max": r" $\uparrow$", "min": r" $\downarrow$", "": ""}
_SIGNS = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
    | {"β": r"$\beta$", "≥": r"$\geq$", "×": r"$\times$", "%": r"\%"}
    | {sign: f"\\{sign}" for sign in "_&#${}"}
)


#: What a value of a key is called.
Name = Callable[[str, object], str]
#: One line of the body: its labels, and its cells by what stands above them.
_Line = tuple[tuple[str, ...], dict[tuple[str, str], str]]


def latex_table(store: Store, frame: pd.DataFrame, layout: Layout) -> str:
    """The frame as a LaTeX float: caption, label, grouped headings with units and arrows, and a note.

    Needs ``\\usepackage{booktabs}``. The best value of the defenses is bold and the second underlined where
    a paired test over seeds tells it from the next one (see :mod:`.marks`).

    Args:
        store: of the results folder.
        frame: of :func:`.layout.selected`.
        layout: rows, columns, metrics, and the float's caption and label.
    """
    used = defined(frame, columns_named(layout.values))
    keys = list(frame.attrs["keys"])
    found = marked(store, frame, layout.values)
    own = names_of(store.folder)
    apart = {key: display_all(frame[key].unique(), own) for key in keys}
    name: Name = lambda key, label: escape(apart[key][str(label)])  # noqa: E731
    down = [key for key in keys if key not in layout.columns]
    down = [k for k in down if k in ("attack", "defense") or frame[k].nunique(dropna=False) > 1]
    lines = _lines(frame, layout, used, down, found, name)
    heads = list(dict.fromkeys(head for _, cells in lines for head in cells))
    seeds = sorted({int(n) for n in frame["seeds"]})
    return "\n".join(
        [
            *_opening(store, layout, used),
            rf"  \begin{{tabular}}{{@{{}}{'l' * len(down)}{'r' * len(heads)}@{{}}}}",
            r"    \toprule",
            *_headings([escape(display(key, own)) for key in down], heads),
            r"    \midrule",
            *_body(lines, heads, len(down)),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"  \par\smallskip\footnotesize {_note(used, seeds, found, layout)}",
            rf"\end{{{'table*' if layout.float.wide else 'table'}}}",
            "",
        ]
    )


def _opening(store: Store, layout: Layout, used: Sequence[Column]) -> Iterator[str]:
    about = layout.float
    suite = store.folder.name
    metrics = ", ".join(dict.fromkeys(title(column) for column in used))
    yield rf"\begin{{{'table*' if about.wide else 'table'}}}[t]"
    yield r"  \centering"
    if about.wide:
        yield r"  \footnotesize\setlength{\tabcolsep}{4pt}"
    yield rf"  \caption{{{about.caption or f'{escape(suite)}: {metrics}.'}}}"
    yield rf"  \label{{{about.label or 'tab:' + re.sub('[^A-Za-z0-9]+', '-', suite).strip('-').lower()}}}"


def _lines(
    frame: pd.DataFrame,
    layout: Layout,
    used: Sequence[Column],
    down: Sequence[str],
    found: Marks,
    name: Name,
) -> list[_Line]:
    table: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for index, row in frame.iterrows():
        cells = table.setdefault(tuple(name(key, row[key]) for key in down), {})
        above = ", ".join(name(key, row[key]) for key in layout.columns)
        texts = {
            column: _number(row, column, found.get((index, column.name)), layout.intervals) for column in used
        }
        if layout.joined:
            known = [text for text in texts.values() if text != "--"]
            cells[above, ""] = "/".join(known) or "--"
            continue
        for column, text in texts.items():
            cells[above, heading(column) if len(used) > 1 or not above else ""] = text
    return list(table.items())


def _number(row: Any, column: Column, mark: Mark | None, intervals: bool) -> str:
    text = shown(row, column) if intervals else show(row[column.name], column)
    if text == UNDEFINED:
        return "--"
    value, _, interval = text.partition(" ")
    value = STYLES[mark] % value if mark else value
    if interval.startswith("±"):
        interval = rf"$\pm$ {interval[2:]}"
    return f"{value} {interval}".strip()


def _headings(down: Sequence[str], heads: Sequence[tuple[str, str]]) -> Iterator[str]:
    """One line of headings, or two: groups with a rule below each, and the metrics."""
    left = " & ".join(down)
    if not any(metric for _, metric in heads):
        yield f"    {left} & {' & '.join(above for above, _ in heads)} \\\\"
        return
    if any(above for above, _ in heads):
        groups = [(above, len(list(part))) for above, part in groupby(heads, key=lambda head: head[0])]
        titles = [rf"\multicolumn{{{count}}}{{c}}{{{above}}}" for above, count in groups]
        yield f"    {'& ' * len(down)}{' & '.join(titles)} \\\\"
        start, rules = len(down) + 1, []
        for _, count in groups:
            rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
            start += count
        yield f"    {''.join(rules)}"
    yield f"    {left} & {' & '.join(metric for _, metric in heads)} \\\\"


def _body(lines: Sequence[_Line], heads: Sequence[tuple[str, str]], labels: int) -> Iterator[str]:
    """The lines; a first label is written once, with some space before the next."""
    before = None
    for label, cells in lines:
        first = label[0] if label else ""
        again = labels > 1 and first == before
        if labels > 1 and before is not None and not again:
            yield r"    \addlinespace"
        shown_label = ("", *label[1:]) if again else label
        yield f"    {' & '.join([*shown_label, *(cells.get(head, '--') for head in heads)])} \\\\"
        before = first


def _note(used: Sequence[Column], seeds: Sequence[int], found: Marks, layout: Layout) -> str:
    parts = []
    if layout.joined or len(used) == 1:
        parts.append(f"{'/'.join(heading(column) for column in used)}.")
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    if seeds[-1] > 1 and not layout.intervals:
        parts.append(f"Mean over {count} seeds.")
    elif seeds[-1] > 1:
        parts.append(
            rf"Mean over {count} seeds $\pm$ 95\,\% confidence interval (Student's $t$), or [its ends] where "
            "a bound cuts it."
        )
    else:
        parts.append("One seed.")
    if found:
        signs = ", of signs where all differences are equal" if seeds[-1] >= EQUAL_NEEDED else ""
        test = (
            rf"it differs from the next (paired $t$ test over seeds{signs}, 5\,\% in all by Holm's "
            "correction)"
            if seeds[-1] > 1
            else "no other defense has the same"
        )
        parts.append(f"The best defense is bold and the second underlined where {test}.")
    return " ".join(parts)


def title(column: Column) -> str:
    """A metric's name without its unit."""
    return escape(column.title.removesuffix(" %"))


def heading(column: Column) -> str:
    """A metric's name with its unit and the direction in which it is better."""
    unit = r" (\%)" if column.title.endswith(" %") else ""
    return f"{title(column)}{unit}{ARROWS[column.best]}"


def escape(text: str) -> str:
    """Text that LaTeX sets as it is; signs that cannot be printed become their codes."""
    return plain(text).translate(_SIGNS)
