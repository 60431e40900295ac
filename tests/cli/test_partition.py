"""``fedguard partition``: the table, the figure and the mistakes; what it shows is what a run gets."""

import sys
import types

import numpy as np
import pytest
import torch

from fedguard.cli import entry as cli
from fedguard.cli.partition import _classes, _merged
from fedguard.contracts.data import Samples
from fedguard.evaluation.results.plot_holdings import draw
from fedguard.evaluation.suites.holdings import Holdings, federations, holdings
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.setup import Setup


def call(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["fedguard", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out = capsys.readouterr()
    return stop.value.code or 0, out.out, out.err


def found(*overrides, seed=None):
    plan, source = load_suite("quickstart", list(overrides))
    return holdings(federations(plan, source, seed)[0], source)


def test_the_numbers_are_those_of_a_run():
    plan, _ = load_suite("quickstart")
    setup, seen = Setup(plan.cells()[0]), found()
    labels = setup.dataset.train.labels
    assert seen.sizes.tolist() == [len(rows) for rows in setup.samples]
    assert seen.counts[3].tolist() == np.bincount(labels[setup.samples[3]], minlength=10).tolist()
    assert seen.skew.tolist() == setup.label_skew.tolist()
    assert seen.malicious == set(setup.malicious)
    assert seen.held == 100
    assert seen.unused == 0
    assert found(seed=1).sizes.tolist() != seen.sizes.tolist()
    assert found("partition={name: k_classes, k: 1}", "clients=9", "malicious=0").unused > 100


def test_the_table(monkeypatch, capsys):
    status, out, err = call(monkeypatch, capsys, "partition", "quickstart", "--seed=3")
    assert (status, err) == (0, "")
    seen = found(seed=3)
    lines = [line.split() for line in out.splitlines()]
    assert "digits · dirichlet (beta 1.0) · seed 3" in out
    row = lines[4 + 7]
    assert row[:3] == ["7", str(seen.sizes[7]), f"{seen.skew[7]:.2f}"]
    assert [0 if cell == "·" else int(cell) for cell in row[3:]] == seen.counts[7].tolist()
    assert "100 with the server" in out
    assert "!" not in out, "who is malicious is told on request only"


def test_malicious_clients_are_marked_on_request(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "partition", "quickstart", "--show-malicious")
    marked = {int(line.split()[1]) for line in out.splitlines() if line.split()[:1] == ["!"]}
    assert marked == found().malicious
    assert "! is malicious" in out


def test_a_grid_shows_its_first_partition(monkeypatch, capsys):
    args = ("partition", "quickstart", "grid={partition.beta: [0.5, 1]}", "training.lr=[0.1, 0.2]")
    _, out, _ = call(monkeypatch, capsys, *args)
    assert "beta 0.5" in out
    assert "deals the samples in 2 ways; this is the first. Another one: 'only=[{partition.beta: 1}]'" in out
    _, out, _ = call(monkeypatch, capsys, *args, "only=[{partition.beta: 1}]")
    assert "beta 1)" in out
    assert "Another one" not in out


def test_changed_inputs_are_told(monkeypatch, capsys):
    _, out, _ = call(
        monkeypatch, capsys, "partition", "quickstart", "partition={name: feature_skew, rotations: [0, 90]}"
    )
    assert "90°, noise ±0.10" in out


def view(counts, **more):
    counts = np.array(counts)
    given = {"skew": None, "notes": (), "malicious": frozenset(), "held": 0, "unused": 0}
    return Holdings("t", counts.sum(1), counts, **{**given, **more})


def test_many_classes_are_bars():
    """By hand: 8 of 8 is a full block, 1 of 8 the lowest, 3 of 8 is ⌈3⌉, and none a dot."""
    line = [0, 1, 3, 8] + [0] * 36
    titles, cells = _classes(view([line]), 60)
    assert titles == ["class 0 … 39 (█ = 8)"]
    assert cells == [["·▁▃█" + "·" * 36]]


def test_more_classes_than_columns_are_taken_together():
    assert _merged(np.array([[1, 2, 3, 4, 5]]), 2).tolist() == [[6, 9]]
    titles, cells = _classes(view([[1] * 100]), 50)
    assert titles == ["class 0 … 99 (█ = 2, 2 classes a block)"]
    assert cells == [["█" * 50]]


@pytest.mark.parametrize(
    ("labels", "counts"),
    [
        (torch.linspace(0, 1, 12)[:, None], None),
        (torch.tensor([[0.0, 1.0], [1.0, 1.0]] * 6), [[2, 4], [2, 4], [2, 4]]),
    ],
)
def test_labels_that_are_no_classes(monkeypatch, labels, counts):
    """Numbers have no counts; of several labels per sample each is counted. Four samples per client."""
    samples = Samples(torch.rand(12, 3), labels)
    task = "regression" if counts is None else "multilabel"
    outputs = labels[:1].numel()
    data = Dataset("numbers", samples, samples, outputs, mean=(0.0,), std=(1.0,), task=task)
    own = types.ModuleType("own_numbers")
    own.__dict__.update(data=lambda: data, deal=lambda labels, n: np.split(np.arange(12), 3))
    monkeypatch.setitem(sys.modules, "own_numbers", own)
    small = ["clients=3", "malicious=0", "server.validation=0", "partition=own_numbers:deal"]
    seen = found("data=own_numbers:data", *small)
    assert seen.sizes.tolist() == [4, 4, 4]
    assert seen.skew is None
    assert (seen.counts is None) if counts is None else (seen.counts.tolist() == counts)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_figure(monkeypatch, capsys, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"who{suffix}"
    more = ("partition=iid", "clients=100", "-o", str(path))
    status, out, _ = call(monkeypatch, capsys, "partition", "quickstart", *more)
    assert status == 0
    assert f"wrote {path}" in out
    head = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(head)


def test_the_figure_draws_every_sample():
    pytest.importorskip("matplotlib")

    seen = found()
    axis = draw(seen).axes[0]
    heights = np.array([bar.get_height() for bar in axis.patches]).reshape(10, 20)
    assert heights.T.tolist() == seen.counts.tolist()
    assert not axis.lines
    marks = draw(seen, show_malicious=True).axes[0].lines[0]
    assert set(marks.get_xdata()) == seen.malicious


def test_more_than_ten_classes_are_a_heat_map():
    pytest.importorskip("matplotlib")

    seen = view([[5, 0, *range(10)], [1] * 12])
    bars, heat = draw(seen).axes[:2]
    assert [bar.get_height() for bar in bars.patches] == [50, 12]
    values = heat.images[0].get_array()
    assert values.shape == (12, 2)
    assert values[0].tolist() == [5, 1]
    assert values.mask[1, 0], "no sample leaves the cell white"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["quickstart", "partition=shrads"], "override 'partition=shrads': partition: unknown partition"),
        (["quickstart", "partition.bta=1"], "did you mean 'beta'"),
        (["quickstart", "data=nothing"], "override 'data=nothing': data: unknown data set"),
        (["quickstart", "partition={name: natural}"], "does not say which client"),
        (["quickstart", "-o", "who.gif"], "use a name that ends in .png, .svg, .pdf"),
        (["quickstart", "server.root=9999"], "the server keeps"),
        (["nosuch"], "no suite 'nosuch'"),
    ],
)
def test_mistakes(monkeypatch, capsys, tmp_path, args, expected):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, "partition", *args)
    assert status == 2
    assert expected in err
    assert "Traceback" not in err


def test_no_model_is_built(monkeypatch, capsys):
    """Whatever the model is: it plays no part in who has what."""
    status, _, _ = call(monkeypatch, capsys, "partition", "quickstart", "model=my_unfinished:Net")
    assert status == 0


def test_classes_and_natural_clients_have_their_names(monkeypatch, capsys, tmp_path):
    """By hand: ward w0 has two of each, w1 four that are ill, w2 four that are well."""
    rows = [("w0", "ill"), ("w0", "well")] * 2 + [("w1", "ill")] * 4 + [("w2", "well")] * 4
    path = tmp_path / "own.csv"
    path.write_text("x,ward,state\n" + "".join(f"{i},{w},{s}\n" for i, (w, s) in enumerate(rows)))
    data = f"data={{name: csv, path: {path}, test_path: {path}, label: state, client: ward}}"
    args = (data, "clients=3", "malicious=0", "server.validation=0", "partition=natural")
    _, out, _ = call(monkeypatch, capsys, "partition", "quickstart", *args)
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert ["client", "name", "samples", "skew", "ill", "well"] in lines
    assert [line[:3] + line[4:] for line in lines if line[0] in "012"] == [
        ["0", "w0", "4", "2", "2"], ["1", "w1", "4", "4", "·"], ["2", "w2", "4", "·", "4"],
    ]  # fmt: skip
    assert found(*args[:-1], "partition=iid").clients == [], "natural clients are mixed"


def test_the_figure_shows_names():
    pytest.importorskip("matplotlib")
    few = view([[2, 2], [4, 0]], classes=["ill", "$x"], clients=["w0", "w$1"])
    axes = draw(few).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["w0", "w$1"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["$x", "ill"]
    names = [f"class {label}" for label in range(12)]
    heat = draw(view([[1] * 12], classes=names)).axes[1]
    assert [text.get_text() for text in heat.get_yticklabels()] == names


def test_names_that_take_too_much_room_give_way():
    names = [f"class_{label:02}" for label in range(10)]
    assert _classes(view([[1] * 10], classes=names), 110)[0] == names
    assert _classes(view([[1] * 10], classes=names), 60)[0] == [str(label) for label in range(10)]
    assert _classes(view([[1] * 10], classes=names), 20)[0] == ["class class_00 … class_09 (█ = 1)"]
