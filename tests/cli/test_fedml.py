"""``fedguard evaluate --fedml``."""

import sys

import pytest

from fedguard.cli import entry

CONFIG = """\
common_args: {training_type: simulation, random_seed: 0}
data_args: {dataset: mnist, partition_method: homo}
model_args: {model: lr}
train_args: {client_num_in_total: 6, comm_round: 1, epochs: 1, batch_size: 32, learning_rate: 0.1}
attack_args: {enable_attack: true, attack_type: byzantine, attack_mode: zero, byzantine_client_num: 1}
defense_args: {enable_defense: true, defense_type: DEFENSE}
"""


def call(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    with pytest.raises(SystemExit) as stop:
        entry.main()
    out = capsys.readouterr()
    return stop.value.code or 0, out.out + out.err


def test_a_fedml_file_runs(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "fedml_config.yaml", tmp_path / "out"
    path.write_text(CONFIG.replace("DEFENSE", "wise_median"))
    options = ("--fedml", "data=digits", "-o", str(out), "--workers", "1")
    status, said = call(monkeypatch, capsys, "evaluate", str(path), *options)
    assert status == 0, said
    assert "1 attacks × 1 defenses" in said
    assert "wise median" in said, "as it is called in print"
    assert any(out.iterdir())


def test_what_is_not_here_is_an_error_with_its_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "fedml_config.yaml"
    path.write_text(CONFIG.replace("DEFENSE", "soteria"))
    status, said = call(monkeypatch, capsys, "evaluate", "--fedml", str(path))
    assert status == 2
    assert "fedml_config.yaml:6: defense_args.defense_type: soteria: not here" in " ".join(said.split())
