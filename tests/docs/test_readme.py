"""README.md: one page, its Python runs as it stands, and it accuses nobody who is innocent."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order_and_flag_the_attacker_only(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    namespace = {"__name__": "readme"}
    exec(compile(blocks[0], "README.md", "exec"), namespace)  # noqa: S102 - our own README
    assert namespace["outcome"].suspects.nonzero()[0].tolist() == [3]
    assert capsys.readouterr().out.startswith("[3] excluded: ")
    exec(compile(blocks[1], "README.md", "exec"), namespace)  # noqa: S102 - our own README
    assert capsys.readouterr().out.startswith("[3] banned for good: dnc score")
    outcome = namespace["outcome"]
    assert outcome.banned.nonzero()[0].tolist() == [3]
    assert np.flatnonzero(outcome.weights == 0).tolist() == [3]


def test_it_is_one_page_with_both_commands_at_the_top():
    assert len(README.splitlines()) <= 150
    top = README[:1200]
    assert "make run" in top
    assert "make test" in top
