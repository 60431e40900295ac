"""The results of the mutants as Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from .case import SECONDS
from .driver import Tally


def failures_of(found: Mapping[str, Tally]) -> list[str]:
    """Return untyped errors and hangs, one line per place in the code, with how to reproduce one."""
    return [
        f'--kind "{name}" {tally.failures[where]} ({count} times)'
        for name, tally in found.items()
        for where, count in tally.counts.most_common()
    ]


def table(found: Mapping[str, Tally]) -> str:
    """Return the summary by kind."""
    total = sum(tally.cases for tally in found.values())
    failed = sum(tally.verdicts["error"] + tally.verdicts["hang"] for tally in found.values())
    lines = [
        "## Untrusted replies and files",
        "",
        f"{total:,} mutants of small valid artifacts; checksums, sizes and counts are corrected after the "
        f"change, so that it reaches the code behind them. A case may take {SECONDS:g} s of processor time. "
        "Besides untyped errors, a case fails if a name in a file is imported, if a file is written through "
        "a link, if a control character is printed or a CSV cell is a formula, and if a client ends a "
        f"federation or harms an honest client. **Failures: {failed}.**",
        "",
        '    python -m fedguard.testing.fuzz --kind "flower replies" --seed 17',
        "",
        "| kind | mutants | pass checksums and schema | accepted | refused with a typed error "
        "| untyped errors | hangs | seconds | slowest (s) |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(name, tally) for name, tally in found.items()),
        "",
        "A Flower reply counts as refused if its sender has weight 0 in the last round.",
    ]
    failures = [f"- {text}" for text in failures_of(found)]
    return "\n".join([*lines, *(["", "Failures:", "", *failures] if failures else [])]) + "\n"


def _row(name: str, tally: Tally) -> str:
    verdicts = [tally.verdicts[verdict] for verdict in ("accepted", "refused", "error", "hang")]
    counts = " | ".join(f"{count:,}" for count in verdicts)
    share = f"{100 * tally.whole / max(1, tally.cases):.0f} %"
    return f"| {name} | {tally.cases:,} | {share} | {counts} | {tally.seconds:.0f} | {tally.slowest:.1f} |"
