"""``--device`` and ``device=``: refused before anything is written where the device is not there."""

import pytest
import torch
from typer.testing import CliRunner

from fedguard.cli.entry import app


@pytest.mark.parametrize("way", [["--device", "cuda:7"], ["device=cuda:7"], ["device=[cpu,cuda:7]"]])
def test_a_missing_device(way, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    small = ["rounds=1", "seeds=[0]"]
    result = CliRunner().invoke(
        app, ["evaluate", "quickstart", *small, *way, "--out", str(tmp_path / "out"), "--workers", "1"]
    )
    assert result.exit_code != 0
    assert "device 'cuda:7' is not there: this machine has cpu" in str(result.output) + str(result.exception)
    assert not (tmp_path / "out").exists()


def test_an_unknown_device_is_refused_with_its_key(tmp_path):
    result = CliRunner().invoke(app, ["evaluate", "quickstart", "device=gpu", "--dry-run"])
    assert result.exit_code != 0
    assert "device" in str(result.output) + str(result.exception)
