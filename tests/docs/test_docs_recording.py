"""docs/how-to/recording.md: all of it runs, in order and in an empty folder, and prints what it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "recording.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def run(command):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "110"}
    program, *args = shlex.split(command)
    assert program == "fedguard"
    done = subprocess.run(
        [sys.executable, "-m", "fedguard", *args], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
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
    assert kinds.count("sh") >= 4
    assert {"yaml", "python", "text"} <= set(kinds)
    assert (tmp_path / "verdicts.csv").read_text().startswith("round,client,id,malicious,attacking,score")
