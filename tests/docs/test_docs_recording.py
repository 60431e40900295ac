"""docs/how-to/recording.md: all of it runs, in order and in an empty folder, and prints what it says."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from fedguard.cli.entry import main

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "recording.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")

    def run(command):
        """A command in this process; what it prints."""
        program, *args = shlex.split(command)
        assert program == "fedguard"
        more = ["--workers", "1"] if args[0] == "evaluate" else []
        monkeypatch.setattr(sys, "argv", ["fedguard", *args, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None), f"{command}\n{printed.out}{printed.err}"
        return printed.out

    printed, kinds = "", []
    for kind, text in BLOCKS:
        kinds.append(kind)
        if kind == "sh":
            printed = "".join(run(line) for line in text.splitlines())
        elif kind == "yaml":
            (tmp_path / "offline.yaml").write_text(text, encoding="utf-8")
        elif kind == "python":
            exec(compile(text, "recording.md", "exec"), {"__name__": "page"})  # noqa: S102 - our own page
            assert "it sent 1 arrays, the model has 2" in capsys.readouterr().out
        else:
            shown = [line.replace(str(tmp_path) + "/", "") for line in printed.splitlines()]
            assert [line for line in text.splitlines() if line not in shown] == []
    assert kinds.count("sh") >= 6
    assert {"yaml", "python", "text"} <= set(kinds)
    assert (tmp_path / "verdicts.csv").read_text().startswith("round,client,id,malicious,attacking,score")
