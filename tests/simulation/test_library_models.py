"""Models of torchvision and timm by name, and weights from files."""

import logging
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedguard.core.errors import ConfigError, ParameterError
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.models import build_model, models
from fedguard.simulation.models import weights as weights_module
from fedguard.simulation.models.check import check_fit
from fedguard.simulation.models.weights import load_weights

COLOR = (3, 32, 32)


def torchvision():
    """Not at the top: a second and a half that most processes with tests do without."""
    from fedguard.simulation.vision import torchvision

    return torchvision


def build(name, shape=COLOR, classes=10, **params):
    return build_model(name, shape, classes, torch.Generator().manual_seed(0), **params)


def test_a_model_of_torchvision_is_torchvisions_own():
    """Oracle: torchvision's builder, fed by the global generator with the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = torchvision().models.squeezenet1_1(num_classes=10, dropout=0.3)
    found = build("torchvision:squeezenet1_1", dropout=0.3)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))
    assert found.classifier[0].p == 0.3
    assert "squeezenet1_1" in models.summary("torchvision:squeezenet1_1")


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "googlenet"])
def test_kin_of_all_kinds_fit_small_color_images(name, recwarn):
    model = build(f"torchvision:{name}", classes=7)
    check_fit(name, model, torch.randn(2, *COLOR, generator=torch.Generator().manual_seed(0)), 7)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "shape", "params", "message"),
    [
        ("torchvision:resnet81", COLOR, {}, "'torchvision:resnet81', did you mean 'torchvision:resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", COLOR, {}, "unknown model"),
        (
            "torchvision:resnet18",
            (1, 28, 28),
            {},
            "takes images of 3 channels, the data have 1; use timm:resnet18",
        ),
        ("torchvision:resnet18", (30,), {}, "works on images"),
        ("torchvision:resnet18", COLOR, {"width": 3}, "unexpected keyword argument 'width'"),
        ("torchvision:resnet18", COLOR, {"pretrained": True}, "pretrained is not for suites; weights: PATH"),
        ("torchvision:squeezenet1_1", COLOR, {"weights": "DEFAULT"}, "FedGuard downloads nothing"),
        ("torchvision:squeezenet1_1", COLOR, {"weights": "missing.pt"}, r"there is no file missing\.pt"),
    ],
)
def test_mistakes_are_named(name, shape, params, message):
    with pytest.raises(ParameterError, match=message):
        build(name, shape, **params)


def test_inputs_that_are_too_small_are_found_before_training(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text("data: digits\nmodel: torchvision:alexnet\nclients: 2\nrounds: 1\n")
    with pytest.raises(ConfigError, match=r"suite\.yaml:2: model: .*3 channels, the data have 1"):
        check_suite(*load_suite(path))
    with pytest.raises(ParameterError, match=r"3×32×32 raised RuntimeError: .*too small"):
        check_fit("torchvision:alexnet", build("torchvision:alexnet"), torch.zeros(2, *COLOR), 10)


# --- weights


def small(classes=4):
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


def random_state(classes=4):
    draw = torch.Generator().manual_seed(1)
    state = small(classes).state_dict()
    return {k: torch.rand(v.shape, generator=draw) if v.ndim else v for k, v in state.items()}


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "module."])
def test_weights_come_from_a_file(tmp_path, suffix, wrap):
    state, path = random_state(), tmp_path / f"weights.{suffix}"
    stored = {f"module.{k}": v for k, v in state.items()} if wrap == "module." else state
    if suffix == "safetensors":
        save_file(stored, path)
    else:
        torch.save({wrap: stored, "epoch": 3} if wrap == "state_dict" else stored, path)
    model = small()
    load_weights("mine", model, str(path))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_weights_of_a_model_of_torchvision(tmp_path):
    path = tmp_path / "weights.pt"
    theirs = torchvision().models.squeezenet1_1(num_classes=10)
    torch.save(theirs.state_dict(), path)
    found = build("torchvision:squeezenet1_1", weights=str(path))
    assert all(map(torch.equal, found.parameters(), theirs.parameters()))
    first = build("torchvision:squeezenet1_1", weights="none")
    assert not torch.equal(next(first.parameters()), next(theirs.parameters()))


def test_a_head_of_another_size_is_replaced_and_said(tmp_path, caplog):
    state, path, model = random_state(9), tmp_path / "weights.pt", small()
    head = {key: value.clone() for key, value in model[2].state_dict().items()}
    torch.save(state, path)
    with caplog.at_level(logging.WARNING):
        load_weights("mine", model, str(path))
    assert "is for 9 classes and this model has 4: it starts anew" in caplog.text
    assert torch.equal(model[0].weight, state["0.weight"])
    assert torch.equal(model[1].running_var, state["1.running_var"])
    assert all(torch.equal(head[key], value) for key, value in model[2].state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k[0] != "0"}, r"2 are missing \(0.weight, 0.bias\)"),
        (lambda s: {**s, "3.weight": torch.ones(2)}, r"1 are not the model's \(3.weight\)"),
        (lambda s: {**s, "0.weight": torch.ones(5, 7)}, r"other shapes: 0.weight \(5, 7\), not \(5, 3\)"),
        (lambda s: [1, 2], "holds no tensors by name"),
        (lambda s: {**s, "epoch": 3}, "holds no tensors by name"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, message):
    path = tmp_path / "weights.pt"
    torch.save(change(random_state()), path)
    with pytest.raises(ParameterError, match=message):
        load_weights("mine", small(), str(path))


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_file_never_runs_code(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"0.weight": Evil()}, path)
    with pytest.raises(ParameterError, match="would run code"):
        load_weights("mine", small(), str(path))
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ParameterError, match="mine"):
        load_weights("mine", small(), str(path))
    path.with_suffix(".safetensors").write_bytes(b"no")
    with pytest.raises(ParameterError, match="cannot be read"):
        load_weights("mine", small(), str(path.with_suffix(".safetensors")))


ODD = {
    "without data": lambda w: w.to("meta"),
    "sparse": lambda w: w.to_sparse(),
    "complex": lambda w: w.to(torch.complex64),
    "quantized": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "announced": lambda w: torch.zeros(1).expand(2**40, 3),
    "not a number": lambda w: w * float("nan"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_weights_are_refused(kind, tmp_path):
    path, state = tmp_path / "weights.pt", random_state()
    torch.save({**state, "0.weight": ODD[kind](state["0.weight"])}, path)
    with pytest.raises(ParameterError, match=r"0\.weight of .* is not a dense tensor of finite numbers"):
        load_weights("mine", small(), str(path))


def test_names_in_a_file_of_weights_do_not_drive_the_terminal(tmp_path):
    torch.save({**random_state(), "\x1b[2J": torch.ones(2)}, tmp_path / "weights.pt")
    with pytest.raises(ParameterError, match=r"\\x1b\[2J") as caught:
        load_weights("mine", small(), str(tmp_path / "weights.pt"))
    assert "\x1b" not in str(caught.value)


def test_a_file_of_weights_has_a_limit_and_is_a_file(tmp_path, monkeypatch):
    """A pipe is not waited for, and zeros may be compressed to a thousandth."""
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(ParameterError, match="there is no file"):
        load_weights("mine", small(), str(tmp_path / "pipe.pt"))
    plain, bomb = tmp_path / "weights.pt", tmp_path / "bomb.pt"
    torch.save({"0.weight": torch.zeros(2**19)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    monkeypatch.setattr(weights_module, "MAX_BYTES", 2**20)
    assert bomb.stat().st_size < 2**14
    with pytest.raises(ParameterError, match="GiB unpacked"):
        load_weights("mine", small(), str(bomb))
    with pytest.raises(ParameterError, match="more than 0 GiB"):
        load_weights("mine", small(), str(plain))


def test_a_library_s_model_that_fills_the_memory_is_refused_before_it_does():
    with pytest.raises(ParameterError, match="more than 268,435,456 parameters"):
        build("torchvision:mobilenet_v2", width_mult=1e5)


# --- timm


def test_a_model_of_timm_takes_any_number_of_channels():
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = timm.create_model("resnet10t", pretrained=False, num_classes=10, in_chans=1, drop_rate=0.1)
    found = build("timm:resnet10t", (1, 32, 32), drop_rate=0.1)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))
    check_fit("timm:resnet10t", found, torch.zeros(2, 1, 32, 32), 10)
    with pytest.raises(ParameterError, match="did you mean 'resnet10t'"):
        build("timm:resnet10tt")
    with pytest.raises(ParameterError, match="checkpoint_path is not for suites"):
        build("timm:resnet10t", checkpoint_path="x.pt")
    with pytest.raises(ParameterError, match="unknown model 'timm:hf-hub:someone/model'"):
        build("timm:hf-hub:someone/model")


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ParameterError, match=r'timm:resnet34 needs an extra: pip install "fedguard\[timm\]"'):
        build("timm:resnet34")
