"""The page guard-lora.md: its five lines and its Python, run as a reader would."""

import re
from pathlib import Path

import numpy as np
import pytest

from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers, which imports it

pytest.importorskip("flwr")
pytest.importorskip("transformers", exc_type=ImportError)
pytest.importorskip("peft", exc_type=ImportError)

import peft
import torch
from flwr.serverapp import ServerApp

from fedguard.simulation.models import build_model
from fedguard.testing.flower import MemoryGrid, reply

TEXT = (Path(__file__).parents[2] / "docs/how-to/guard-lora.md").read_text(encoding="utf-8")


def block(kind):
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return found


def test_a_folder_goes_in_and_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "page"}
    exec(compile(block("python"), "page", "exec"), scope)  # noqa: S102 - our own page
    assert capsys.readouterr().out.count("node-") == 5
    assert "node-6" not in {verdict.client for verdict in scope["strategy"].verdicts}
    opened = peft.get_peft_model_state_dict(scope["model"])
    for name, array in scope["result"].arrays.items():
        np.testing.assert_array_equal(array.numpy(), opened[name].numpy())


def test_five_changed_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = block("diff").splitlines()
    assert sum(line.startswith("+") for line in lines) == 5
    generator = torch.Generator().manual_seed(0)
    base = build_model("hf:tiny-bert", (24,), 4, generator).base
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["query"]))
    grid = MemoryGrid(
        dict.fromkeys(range(1, 7), lambda arrays, _: reply({k: a + 1 for k, a in arrays.items()}))
    )
    scope = {"__name__": "page", "app": ServerApp(), "model": model}
    exec(compile("\n".join(line[1:] for line in lines), "diff", "exec"), scope)  # noqa: S102
    scope["main"](grid, None)
    assert len(grid.asked) == 3 * 2, "training, and no evaluation, in three rounds"
    assert (tmp_path / "guard-state" / "verdicts.jsonl").exists()
