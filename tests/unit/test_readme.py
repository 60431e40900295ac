"""The Python of README.md runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    namespace = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README
    out = capsys.readouterr().out
    assert "hospital-7: weight 0, excluded, strike 1 of 2: non-finite update" in out
    assert "hospital-3: weight 0, excluded, strike 1 of 2: krum score" in out
    suspects = namespace["guard"].process(namespace["Round"](namespace["updates"])).suspects
    assert suspects[3]
    assert suspects[7]


def test_both_commands_are_at_the_top():
    top = README[:1200]
    assert "make run" in top
    assert "make test" in top
