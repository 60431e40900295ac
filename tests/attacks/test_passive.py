"""``fedguard leak``: a simulated client, a passive attack, and the truth to compare with."""

import math
import sys

import pytest
import torch
from PIL import Image

from fedguard.cli.entry import main
from fedguard.core.errors import ParameterError
from fedguard.evaluation.running.leak import LeakSettings, leak_of, passive


def call(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    try:
        main()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    return status, *capsys.readouterr()


def test_one_sample_of_the_digits_is_recovered_and_drawn(monkeypatch, capsys, tmp_path):
    picture = tmp_path / "leak.png"
    status, out, _ = call(monkeypatch, capsys, "leak", "dlg", "iterations=60", "--picture", str(picture))
    assert status == 0
    numbers = {name: float(value) for name, value in (line.split() for line in out.splitlines())}
    assert numbers["psnr"] > 40 > numbers["noise_psnr"]
    assert numbers["ssim"] > 0.99 > numbers["noise_ssim"]
    assert numbers["labels"] == 1
    assert Image.open(picture).size == (8 * 8 + 8, 2 * 8 * 8 + 12)


def test_the_same_seed_gives_the_same_leak():
    settings = LeakSettings(samples=2)
    attack = passive("inverting_gradients", {"iterations": 20})
    once, again = leak_of(settings, attack), leak_of(settings, attack)
    assert torch.equal(once.pixels, again.pixels)
    assert once.metrics == again.metrics
    assert not torch.equal(once.truth, leak_of(LeakSettings(samples=2, seed=1), attack).truth)


def test_an_attack_may_start_from_what_the_defense_distils():
    settings = LeakSettings(samples=1)
    knowledge = {"threshold": 0.1, "first_iterations": 200, "inner_lr": 1.0, "lr_images": 1.0}
    start = passive("distilled_knowledge", {"defense": knowledge})
    attack = passive("inverting_gradients", {"iterations": 3})
    cold, warm = leak_of(settings, attack), leak_of(settings, attack, start)
    assert warm.metrics["psnr"] > cold.metrics["psnr"] + 5


def test_an_attack_on_labels_has_no_picture_and_says_nothing_of_pixels():
    result = leak_of(LeakSettings(samples=3), passive("revealing_labels", {}))
    assert result.pixels is None
    assert math.isnan(result.metrics["psnr"])


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ParameterError, match="lie is not passive"):
        passive("lie", {})
    attack = passive("dlg", {})
    with pytest.raises(ParameterError, match="leaks are measured on images"):
        leak_of(LeakSettings(data="breast_cancer"), attack)
    with pytest.raises(ParameterError, match="samples is 99999"):
        leak_of(LeakSettings(samples=99999), attack)
    with pytest.raises(ParameterError, match="does not find inputs and labels to start from"):
        leak_of(LeakSettings(), attack, passive("revealing_labels", {}))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("lie",), "not passive"),
        (("dlg", "iteration=3"), "did you mean 'iterations'"),
        (("dlg", "iterations"), "write key.path=value"),
        (("dlg", "iterations=1", "--picture", "no/such/folder/x.png"), "cannot write"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, capsys, args, message):
    status, _, err = call(monkeypatch, capsys, "leak", *args)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
