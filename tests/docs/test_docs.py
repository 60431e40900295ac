"""The tutorials: their Python and their commands, one after the other, in an empty folder."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from fedguard.cli.entry import main

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: Each page about methods of one's own, and the modules that its commands write.
METHODS = {
    "add-a-detector.md": ("far_out",),
    "add-an-attack.md": ("turncoat",),
    "add-an-aggregator-or-a-policy.md": ("short_mean", "half_weight"),
}
#: What the table at the end of a page has.
SHOWN = {"add-a-detector.md": ("far_out",), "add-an-aggregator-or-a-policy.md": ("short", "half")}


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", METHODS)
def test_the_commands_of_a_tutorial(page, tmp_path, monkeypatch, capsys, python):
    """`fedguard` in this process, `python` in one of its own, which has imported FedGuard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "path", list(sys.path))  # commands add the folder, for the reader's module
    commands = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines() if line]
    assert len(commands) >= 3
    for name in METHODS[page]:  # of another test
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
            assert all(word in said.out for word in SHOWN.get(page, ()))
    for name in METHODS[page]:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("page", METHODS)
def test_the_python_of_a_tutorial(page):
    scope = {"__name__": "tutorial"}
    found = [text for kind, text in blocks(page) if kind == "python"]
    assert found
    for text in found:
        exec(compile(text, page, "exec"), scope)  # noqa: S102 - our own page


@pytest.mark.parametrize(
    ("kind", "name", "page"),
    [
        ("detector", "far_out", "add-a-detector.md"),
        ("aggregator", "short_mean", "add-an-aggregator-or-a-policy.md"),
        ("policy", "half_weight", "add-an-aggregator-or-a-policy.md"),
    ],
)
def test_the_method_of_a_tutorial_is_what_new_writes(kind, name, page, tmp_path):
    from fedguard.cli.scaffold import class_name, scaffold

    module, _ = scaffold(kind, name, tmp_path)
    start = f"class {class_name(name)}"
    body = module.read_text(encoding="utf-8").partition(start)[2]
    shown = next(text for kind, text in blocks(page) if start in text)
    assert re.sub(r"nobody, \d+", "nobody, 2026", body) == shown.partition(start)[2]
