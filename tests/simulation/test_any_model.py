"""Models of one's own in a federation: the same bits for any number of workers, frozen parameters."""

import importlib
import math
import sqlite3
import sys
from contextlib import closing

import pytest
import torch

from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.pool import Workers

NETS = """
import torch
from torch import nn

class Noisy(nn.Module):
    '''Dropout, BatchNorm, an LSTM with Dropout between its layers, and a call of ``view``.'''

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.4)
        self.lstm = nn.LSTM(24, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.last = nn.Linear(6, 10)

    def forward(self, x):
        x = self.drop(torch.relu(self.norm(self.first(x)))).contiguous().view(len(x), 6, 24)
        return self.last(self.lstm(x)[0][:, -1])

class Frozen(nn.Module):
    '''A frozen feature extractor with BatchNorm statistics, and a trained head of two layers.'''

    def __init__(self):
        super().__init__()
        self.extract = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU())
        self.extract.requires_grad_(False)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 10))

    def forward(self, x):
        return self.head(self.extract(x))

def bits(cell):
    '''What a worker that runs the whole cell finds.'''
    from fedguard.simulation.federation import Federation

    federation = Federation(cell)
    return [record.loss for record in federation.run()], federation.params, federation.statistics
"""

SUITE = """\
data: digits
model: 'own_nets:NET'
clients: 7
malicious: 2
rounds: 2
training: {steps: 2, batch_size: 16, lr: 0.1}
server: {validation: 64, root: 64}
attacks: [{name: byzantine, mode: flip}, label_flip]
defenses:
  trust: {detector: krum, aggregator: fltrust}
"""


@pytest.fixture(autouse=True)
def nets(tmp_path):
    (tmp_path / "own_nets.py").write_text(NETS)
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("own_nets", None)


def suite_of(folder, net, text=SUITE):
    path = folder / "tiny.yaml"
    path.write_text(text.replace("NET", net))
    return load_suite(path)[0]


def numbers(store):
    """All that was measured."""
    with closing(sqlite3.connect(store.path)) as db:
        queries = ("SELECT * FROM rounds ORDER BY 1, 2", "SELECT * FROM clients ORDER BY 1, 2, 3")
        return [db.execute(query).fetchall() for query in queries]


class Stop(BaseException):
    """An interruption between two rounds."""


def same(one, other):
    return one[0] == other[0] and all(map(torch.equal, one[1:], other[1:]))


@pytest.mark.usefixtures("forked_workers")
def test_dropout_and_batch_norm_give_the_same_bits_with_any_number_of_workers(tmp_path):
    cells = suite_of(tmp_path, "Noisy").cells()
    own = importlib.import_module("own_nets")
    with Workers(1) as here:
        expected = here.map(own.bits, cells)
    with Workers(2) as workers:
        for found, alone in zip(workers.map(own.bits, cells), expected, strict=True):
            assert same(found, alone), "the cells side by side"
        for cell, alone in zip(cells, expected, strict=True):
            torch.rand(11)  # what happened before does not show
            federation = Federation(cell, workers.map)
            losses = [record.loss for record in federation.run()]
            assert same((losses, federation.params, federation.statistics), alone), "the clients side by side"


def test_dropout_and_batch_norm_give_the_same_bits_after_a_resume(tmp_path):
    suite, left = suite_of(tmp_path, "Noisy"), [3]
    expected = numbers(run_suite(suite, tmp_path / "alone", workers=1))

    def interrupt(_cell, _index):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    with pytest.raises(Stop):
        run_suite(suite, tmp_path / "resumed", 1, on_round=interrupt, checkpoint_seconds=0)
    torch.rand(11)
    assert numbers(run_suite(suite, tmp_path / "resumed", 1, checkpoint_seconds=0)) == expected


def test_frozen_parameters_stay_the_servers(tmp_path):
    federation = Federation(suite_of(tmp_path, "Frozen").cells()[0])
    model, trained = federation.setup.model, 36 * 8 + 8 + 8 * 10 + 10
    assert len(federation.params) == trained
    before = {name: value.clone() for name, value in model.extract.state_dict().items()}
    first = federation.step(0).loss
    assert federation.step(1).loss < first
    assert all(torch.equal(before[name], value) for name, value in model.extract.state_dict().items())


@pytest.mark.parametrize(
    "defense",
    [
        "{detector: recommended}",
        "{detector: [err, {name: deepsight, samples: 500}, {name: foolsgold, features: last_layer}]}",
        "{detector: {name: fedredefense, num_images: 2, first_iterations: 2, later_iterations: 1}}",
        "{detector: {name: fedredefense, inner_loop: higher, num_images: 2, first_iterations: 2,"
        " first_labels: bias, later_iterations: 1}}",
        "{aggregator: fltrust}",
    ],
)
def test_methods_that_evaluate_the_model_take_frozen_parameters(tmp_path, defense):
    text = SUITE.partition("defenses:")[0] + f"defenses: {{d: {defense}}}\n"
    if "higher" in defense:
        pytest.importorskip("higher")
    federation = Federation(suite_of(tmp_path, "Frozen", text).cells()[0])
    rows = [row for index in range(2) for row in federation.step(index).clients]
    assert len(rows) == 14
    assert all(math.isfinite(row.score) or "fltrust" in defense for row in rows)
    assert all(row.participated for row in rows)


# --- a residual network with BatchNorm

PICTURES = """
import torch
from fedguard.contracts.data import Samples
from fedguard.simulation.datasets import Dataset

def pictures(side: int = 32):
    '''Two classes of noise around two pictures.'''
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 2
    pixels = torch.rand(2, 3, side, side, generator=draw)[labels] * 0.5
    pixels += 0.5 * torch.rand(90, 3, side, side, generator=draw)
    train, test = Samples(pixels[:60], labels[:60]), Samples(pixels[60:], labels[60:])
    return Dataset("pictures", train, test, 2, mean=(0.5,) * 3, std=(0.2,) * 3)
"""

RESIDUAL = """\
data: {name: 'own_pictures:pictures', side: SIDE}
model: {name: MODEL, norm: batch}
clients: 6
malicious: 1
rounds: 2
training: {steps: 1, batch_size: 4, lr: 0.02}
server: {validation: 24}
attacks: [{name: byzantine, mode: flip}]
defenses: {d: DEFENSE}
"""


@pytest.mark.parametrize(
    ("model", "side"),
    [("resnet20", 8), pytest.param("resnet18", 32, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "defense",
    [
        "{detector: krum}",
        "{detector: recommended}",
        "{detector: {name: fedredefense, num_images: 2, inner_steps: 1, first_iterations: 1,"
        " later_iterations: 1}}",
    ],
)
def test_detectors_work_on_a_residual_network_with_batch_norm(tmp_path, model, side, defense):
    (tmp_path / "own_pictures.py").write_text(PICTURES)
    text = RESIDUAL.replace("MODEL", model).replace("SIDE", str(side)).replace("DEFENSE", defense)
    try:
        federation = Federation(suite_of(tmp_path, "", text).cells()[0])
        before = federation.statistics
        records = [federation.step(index) for index in range(2)]
    finally:
        sys.modules.pop("own_pictures", None)
    rows = [row for record in records for row in record.clients]
    assert len(rows) == 12
    assert all(math.isfinite(row.score) for row in rows)
    assert math.isfinite(records[1].loss)
    if any(row.weight for row in rows):
        assert not torch.equal(federation.statistics, before)
