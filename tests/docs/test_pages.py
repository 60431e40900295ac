"""All pages: their links lead somewhere, their Python runs, and their commands are commands."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from fedguard.evaluation.suites.load import load_suite

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from _ext import checkout, public  # noqa: E402 - what the site is built with

BUILT = ("docs/reference/generated", "docs/results/measured", "docs/project/", "docs/explanation/security.md")
PAGES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
    if not path.relative_to(ROOT).as_posix().startswith(BUILT)
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
FENCE = re.compile(r"^```(\S*)( no-run)?[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: Pages whose blocks depend on each other and on what is printed have tests of their own.
ELSEWHERE = {
    "README.md": "test_readme.py",
    "docs/how-to/flower.md": "test_engine_docs.py",
    "docs/how-to/other-engines.md": "test_engine_docs.py",
    "docs/how-to/ledger.md": "test_docs_ledger.py",
    "docs/how-to/calibrate.md": "test_docs_ledger.py",
    "docs/how-to/recording.md": "test_docs_recording.py",
    "docs/how-to/add-a-detector.md": "test_docs.py",
    "docs/how-to/add-an-attack.md": "test_docs.py",
    "docs/how-to/add-an-aggregator-or-a-policy.md": "test_docs.py",
    "docs/how-to/your-own-model.md": "test_docs_model.py",
    "docs/how-to/guard-lora.md": "test_lora_page.py",
}


def commands(text):
    """Lines of shell blocks and of indented blocks that begin with a program of ours."""
    blocks = [body for kind, _, body in FENCE.findall(text) if kind in ("sh", "console", "bash")]
    blocks += re.findall(r"(?:^    .*\n)+", FENCE.sub("", text), re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (re.sub(r"(^\$ )|(\s+#.*$)", "", line.strip()) for line in lines)
    return [line for line in found if re.match(r"(fedguard|make|pip|pytest|python3?) ", line)]


def fedguard(args):
    """Parse a command line of ours without running it; a usage error is an exception."""
    command, args = public.command(), list(args)
    while hasattr(command, "commands"):
        assert args[0] in command.commands, args[0]
        command = command.commands[args.pop(0)]
    context = command.make_context(command.name, list(args))
    if command.name == "evaluate" and (ROOT / "configs" / f"{context.params['suite']}.yaml").exists():
        load_suite(context.params["suite"], list(context.params["overrides"] or []))


def check(line):
    program, *args = shlex.split(line)
    if program == "fedguard":
        fedguard(args)
    elif program == "make":
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert args[0] in targets
    elif program.startswith("python") and args[0] != "-m":
        assert any(
            (home / args[0]).exists()
            for home in (ROOT, ROOT / "examples" / "flower", ROOT / "examples" / "flower_lora")
        )
    elif program == "pytest":
        paths = [arg for arg in args if "/" in arg]
        assert paths
        assert all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for _, _, target in checkout.LINK.findall(text)]
    inner = [t for t in targets if t and ":" not in t and "/generated/" not in t]
    assert [t for t in inner if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_commands(page):
    for line in commands(page.read_text(encoding="utf-8")):
        try:
            check(line)
        except Exception as error:
            raise AssertionError(f"{line}: {error or type(error).__name__}") from error


def test_a_wrong_command_would_be_noticed():
    for line in (
        "fedguard evaluat quickstart",
        "fedguard evaluate quickstart --worker 1",
        "fedguard evaluate quickstart roundz=3",
        "make nothing",
        "python benchmarks/nothing.py",
        "pytest tests/nothing.py",
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 - each has an error of its own
            check(line)
    assert len([line for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]) > 60


@pytest.mark.usefixtures("forked_reader")
@pytest.mark.parametrize(
    "page", [p for p, n in zip(PAGES, NAMES, strict=True) if n not in ELSEWHERE], ids=str
)
def test_python_runs(page, tmp_path, monkeypatch):
    if page.name == "language-models.md":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "page"}
    for kind, skip, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "python" and not skip:
            exec(compile(body, str(page), "exec"), scope)  # noqa: S102 - our own page


def test_pages_with_tests_of_their_own_have_them():
    for page, name in ELSEWHERE.items():
        (test,) = (ROOT / "tests").rglob(name)
        assert os.path.basename(page) in test.read_text(encoding="utf-8"), page  # noqa: PTH119
