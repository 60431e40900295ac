"""docs/how-to/flower.md and docs/how-to/other-engines.md: their Python runs, and does what they say."""

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def executed(page):
    scope = {"__name__": "page"}
    found = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert found
    for text in found:
        exec(compile(text, page, "exec"), scope)  # noqa: S102 - our own page
    return scope


def test_the_page_on_flower(capsys):
    pytest.importorskip("flwr")
    scope = executed("flower.md")
    assert scope["result"].arrays["bias"].numpy() == pytest.approx(np.ones(4), abs=0.2)
    out = capsys.readouterr().out
    assert re.search(r"node-6 0\.0 banned for good: dnc score", out)
    assert "node-7 0.0 banned for good: array 'bias' is missing" in out
    assert out.count(" 1.0 accepted") == 5
    assert scope["strategy"].aggregate == "guard"


def test_five_changed_lines():
    (diff,) = re.findall(r"^```diff\n(.*?)^```", (DOCS / "flower.md").read_text("utf-8"), re.DOTALL | re.M)
    assert sum(line.startswith("+") for line in diff.splitlines()) == 5
    after = "\n".join(line[1:] for line in diff.splitlines())
    pytest.importorskip("flwr")
    from flwr.serverapp import ServerApp

    from fedguard.testing.flower import MemoryGrid, arrays_record, reply

    ids = range(1, 7)
    grid = MemoryGrid({i: lambda arrays, message: reply({k: a + 1 for k, a in arrays.items()}) for i in ids})
    start = arrays_record({"w": np.zeros(8, np.float32)})
    scope = {"__name__": "page", "app": ServerApp(), "initial_arrays": start}
    exec(compile(after.replace("state=", "state=None and "), "diff", "exec"), scope)  # noqa: S102
    scope["main"](grid, None)
    assert len(grid.asked) == 3 * 2, "training, and no evaluation, in three rounds"


def test_the_page_on_other_engines():
    scope = executed("other-engines.md")
    guard = scope["guard"]
    assert guard.banned(scope["clients"], 2) == ["site-3", "site-5"]
    assert [w.shape for w in scope["weights"]] == [(5, 3), (3,)]
    assert np.concatenate([w.ravel() for w in scope["weights"]]) == pytest.approx(np.full(18, 0.2), abs=0.05)
