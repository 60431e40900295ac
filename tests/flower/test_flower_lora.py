"""The example of LoRA adapters: its app in one process, and as it is run; skipped without ``llm``."""

import importlib
import importlib.util
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fedguard.simulation.vision import torchvision  # noqa: F401 - before transformers, which imports it

pytest.importorskip("flwr")
pytest.importorskip("transformers", exc_type=ImportError)
pytest.importorskip("peft", exc_type=ImportError)

import peft
from flwr.app import Context, RecordDict

from fedguard.testing.flower import MemoryGrid

APP = Path(__file__).parents[2] / "examples" / "flower_lora"
SILOS = 6


def verdicts(folder):
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def app(monkeypatch):
    """The example's modules, without a trace afterwards."""
    monkeypatch.syspath_prepend(str(APP))
    names = ("client_app", "server_app", "task")
    yield [importlib.import_module(f"guarded_lora.{name}") for name in names]
    for name in [n for n in sys.modules if n.partition(".")[0] == "guarded_lora"]:
        del sys.modules[name]


def table(state, truth):
    spec = importlib.util.spec_from_file_location("flower_run", APP.parent / "flower" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table(state, truth)


def test_the_app_bans_the_attacker_and_saves_adapters_that_peft_opens(app, tmp_path, capsys):
    client_app, server_app, task = app
    text = (APP / "pyproject.toml").read_text("utf-8")
    folders = {name: tmp_path / name for name in ("state", "truth", "save")}
    folders["truth"].mkdir()
    config = tomllib.loads(text)["tool"]["flwr"]["app"]["config"] | {"rounds": 3}
    config |= {name: str(path) for name, path in folders.items()}

    def context(node):
        own = {"partition-id": node - 1, "num-partitions": SILOS}
        return Context(run_id=1, node_id=node, node_config=own, state=RecordDict(), run_config=config)

    def silo(node):
        return lambda arrays, message: client_app.fit(message, context(node)).content

    server_app.main(MemoryGrid({node: silo(node) for node in range(1, SILOS + 1)}), context(0))
    rows = verdicts(folders["state"])
    assert {(row["node"], row["round"]) for row in rows if row["weight"] == 0} == {(1, 0), (1, 1)}
    assert [row["node"] for row in rows if row["banned"]] == [1]
    assert sorted(row["node"] for row in rows if row["round"] == 2) == [2, 3, 4, 5, 6]
    lines = table(folders["state"], folders["truth"]).splitlines()
    assert lines[1].split() == ["node-1", "sign_flip", "2", "2", "since", "round", "1"]
    assert [line.split()[1:] for line in lines[2:]] == [["honest", "3", "0"]] * 5

    model = task.make_model()
    opened = peft.PeftModel.from_pretrained(model.get_base_model(), folders["save"])
    _, accuracy = task.test(opened, task.server_data())
    printed = capsys.readouterr().out
    assert f"accuracy after 3 rounds: {accuracy:.3f}" in printed
    assert accuracy > 0.5, "four equally frequent classes"
    assert all(torch.isfinite(tensor).all() for tensor in task.adapters(opened).values())


@pytest.mark.slow
def test_flwr_run_prints_the_verdicts(tmp_path):
    pytest.importorskip("ray")
    command = [sys.executable, str(APP / "run.py"), f"save={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if " sign_flip " in line or " honest " in line]
    assert sorted(row[1] for row in rows) == ["honest"] * 5 + ["sign_flip"]
    assert [row[1] for row in rows if "since" in row] == ["sign_flip"]
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
