"""The tutorials: their Python and their commands, one after the other, in an empty folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from fedguard.cli.entry import main

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["add-a-detector.md", "add-an-attack.md"])
def test_the_commands_of_a_tutorial(page, tmp_path, monkeypatch, capsys, python):
    """`fedguard` in this process, `python` in one of its own, which has imported FedGuard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", list(sys.path))  # commands add the folder, for the reader's module
    commands = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines() if line]
    assert len(commands) >= 3
    for name in ("far_out", "turncoat"):  # of another test
        monkeypatch.delitem(sys.modules, name, raising=False)
    for command in commands:
        program, *args = shlex.split(command)
        if program == "python":
            done = python(*args).wait()
            assert done.returncode == 0, done.stdout + done.stderr
            continue
        assert program == "fedguard"
        monkeypatch.setattr(sys, "argv", ["fedguard", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code in (0, None), f"{command}\n{said.out}{said.err}"
        if "markdown" in command:
            assert "far_out" in said.out
    for name in ("far_out", "turncoat"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", ["add-a-detector.md", "add-an-attack.md"])
def test_the_python_of_a_tutorial(page):
    scope = {"__name__": "tutorial"}
    found = [text for kind, text in blocks(page) if kind == "python"]
    assert found
    for text in found:
        exec(compile(text, page, "exec"), scope)  # noqa: S102 - our own page


def test_the_tutorials_detector_is_what_new_writes(tmp_path):
    from fedguard.cli.scaffold import scaffold

    module, _ = scaffold("detector", "far_out", tmp_path)
    body = module.read_text(encoding="utf-8").split("from fedguard", 1)[1]
    page = next(text for kind, text in blocks("add-a-detector.md") if "class FarOut" in text)
    assert body.replace(re.search(r"nobody, (\d+)", body)[1], "2026") == page.split("from fedguard", 1)[1]
