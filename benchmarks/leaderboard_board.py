"""An interactive leaderboard from the rows of leaderboards: one page that loads nothing.

python benchmarks/leaderboard_board.py ROWS.csv [MORE.csv …] --out board.html
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
from leaderboard_rows import KEYS, read_rows

from fedguard.core.files import write_file

TEMPLATE = Path(__file__).with_name("leaderboard_template.html")
WORDS = ["data", "attack", "detector"]
SHOWN = [*KEYS, "dacc", "dacc_active", "fpr", "fnr", "fnr_active", "auroc", "tpr_at_1", "harm"]


def board(rows: pd.DataFrame) -> str:
    """The page, with all finished runs in it; texts are escaped for a script element."""
    done = rows[rows["status"] != "failed"]
    words = {name: sorted(done[name].unique()) for name in WORDS}
    columns = [
        [words[name].index(value) for value in done[name]]
        if name in WORDS
        else [_short(v) for v in done[name]]
        for name in SHOWN
    ]
    data = {"columns": SHOWN, "words": words, "rows": list(zip(*columns, strict=True))}
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", text)


def _short(value: Any) -> Any:
    """Five digits are enough; JSON has no NaN."""
    number = float(value)
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() else round(number, 5)


def main() -> None:
    """Read the rows of all files, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    write_file(given.out, board(pd.concat([read_rows(path) for path in given.rows], ignore_index=True)))
    print(f"wrote {given.out} ({given.out.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    main()
