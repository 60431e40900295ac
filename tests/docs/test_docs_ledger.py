"""The operator's pages: their Python and their commands in order, and what the commands print."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from fedguard.cli import entry as cli

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def masked(text):
    """Without what depends on the clock, the machine's arithmetic and the widths that follow from them."""
    text = re.sub(r"[-─━]+", "-", re.sub(r"\d+(\.\d+)?", "#", text))
    return [" ".join(line.split()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("page", "printouts", "file", "least"),
    [("ledger.md", 5, "ledger.json", 1000), ("calibrate.md", 1, "guard.yaml", 100)],
)
def test_the_page(page, printouts, file, least, monkeypatch, capsys, tmp_path):
    pytest.importorskip("prometheus_client")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    scope, printed, compared = {"__name__": "page"}, "", 0
    for kind, text in BLOCK.findall((PAGES / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(text, page, "exec"), scope)  # noqa: S102 - our own page
        elif kind == "sh":
            printed = ""
            for line in text.splitlines():
                monkeypatch.setattr(sys, "argv", shlex.split(line))
                with pytest.raises(SystemExit) as stop:
                    cli.main()
                out = capsys.readouterr()
                assert not stop.value.code, line + out.err
                printed += out.out
        else:
            assert masked(text) == masked(printed), printed
            compared += 1
    assert compared == printouts
    assert (tmp_path / file).stat().st_size > least
