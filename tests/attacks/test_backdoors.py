"""Backdoors against their definitions, written out with loops."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from fedguard import LabeledData
from fedguard.contracts.attack import DataView, TrainView, UpdateView
from fedguard.contracts.data import Samples
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.registry import make_attack
from fedguard.core.errors import ParameterError
from fedguard.training.local import train_client

BLANK = torch.zeros(2, 1, 12, 12)


def view(m=2, n=8, d=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return UpdateView(
        index=0,
        num_clients=n,
        global_params=torch.randn(d, generator=draw),
        initial_params=torch.zeros(d),
        own_updates=torch.randn(m, d, generator=draw),
        generator=draw,
    )


def samples_of(images, labels):
    return Samples(torch.as_tensor(images, dtype=torch.float32), torch.as_tensor(labels))


def data_view(rank=0, seed=0):
    return DataView(rank, 4, 10, torch.Generator().manual_seed(seed))


# --- DBA


def test_dba_bars_are_where_the_paper_draws_them():
    """On MNIST, TS = 4, TG = 2, TL = 0: rows 0 and 3, columns 0-3 and 6-9."""
    attack = make_attack("dba")
    places = [(0, 0), (0, 6), (3, 0), (3, 6)]
    for rank, (row, column) in enumerate(places):
        expected = np.zeros((12, 12))
        expected[row, column : column + 4] = 1
        for k in (rank, rank + 4):
            np.testing.assert_array_equal(attack.stamp(BLANK, k)[1, 0], expected)


@pytest.mark.parametrize("params", [{}, {"size": 2, "gap": 0, "shift": 3}, {"size": 1, "gap": 4, "shift": 1}])
def test_the_union_of_the_local_triggers_is_the_global_one(params):
    attack = make_attack("dba", **params)
    union = torch.stack([attack.stamp(BLANK, rank) for rank in range(4)]).amax(0)
    whole = attack.stamp(BLANK, None)
    assert torch.equal(union, whole)
    assert whole.sum() == 2 * 4 * params.get("size", 4), "and they do not overlap"
    assert torch.equal(attack.trial(samples_of(BLANK, [0, 1]), 10).samples.pixels, whole)
    height, width = attack.extent()
    rows, columns = whole[0, 0].sum(1).nonzero(), whole[0, 0].sum(0).nonzero()
    assert (rows.max() + 1, columns.max() + 1) == (height, width)


def test_each_attacker_plants_its_own_bar():
    attack = make_attack("dba", fraction=1.0)
    for rank in range(4):
        poisoned = attack.poison_data(samples_of(BLANK, [0, 1]), data_view(rank))
        assert torch.equal(poisoned.pixels[2:], attack.stamp(BLANK, rank))
        assert poisoned.labels.tolist() == [0, 1, 2, 2]


def test_a_trigger_that_does_not_fit_is_refused():
    attack = make_attack("dba", size=4, gap=2)
    attack.check((1, 4, 10), 10, 8, 2)
    for shape in ((1, 3, 10), (1, 4, 9)):
        with pytest.raises(ParameterError, match="4 x 10 pixels does not fit"):
            attack.check(shape, 10, 8, 2)


# --- model replacement


@pytest.mark.parametrize(("m", "lr"), [(1, 1.0), (2, 0.5), (4, 2.0)])
def test_averaging_leaves_the_mean_of_the_backdoored_models(m, lr):
    """Benign clients that have converged send zeros; the server adds lr times the mean."""
    what = view(m=m)
    sent = make_attack("model_replacement", server_lr=lr).craft(what)
    mean = np.vstack([sent.numpy(), np.zeros((8 - m, 5))]).mean(0)
    replaced = what.global_params.numpy() + lr * mean
    wanted = what.global_params.numpy() + what.own_updates.numpy().mean(0)
    np.testing.assert_allclose(replaced, wanted, rtol=1e-5, atol=1e-6)


def test_a_given_scale_wins_and_one_that_shrinks_is_refused():
    what = view()
    assert torch.equal(make_attack("model_replacement", scale=7.0).craft(what), 7 * what.own_updates)
    with pytest.raises(ParameterError, match=r"is 0\.8 < 1"):
        make_attack("model_replacement", server_lr=5.0).check((1, 8, 8), 10, 8, 2)


# --- edge cases


def by_hand_tail(images, labels, label, share):
    members = [i for i, other in enumerate(labels) if other == label]
    mean = np.mean([images[i] for i in members], axis=0)
    far = sorted(members, key=lambda i: -((images[i] - mean) ** 2).sum())
    return set(far[: max(1, round(share * len(members)))])


@pytest.fixture
def collection():
    rng = np.random.default_rng(0)
    return rng.random((60, 1, 4, 4)), rng.integers(0, 4, 60)


@pytest.mark.parametrize(("source", "share"), [(3, 0.2), (0, 0.5), (None, 0.1)])
def test_edge_cases_are_the_tail_of_their_class(collection, source, share):
    images, labels = collection
    attack = make_attack("edge_case", source=source, target=1, tail=share)
    trial = attack.trial(samples_of(images, labels), 4)
    classes = [0, 2, 3] if source is None else [source]
    wanted = set().union(*(by_hand_tail(images, labels, c, share) for c in classes))
    found = {next(i for i in range(60) if np.allclose(images[i], x)) for x in trial.samples.pixels.numpy()}
    assert found == wanted
    assert len(trial.samples.labels) == len(wanted)
    assert set(trial.target.tolist()) == {1}


def test_the_mixture_holds_the_share_of_edge_cases_asked_for(collection):
    images, labels = collection
    samples = samples_of(images, labels)
    attack = make_attack("edge_case", source=2, target=1, tail=0.3, fraction=0.4)
    poisoned = attack.poison_data(samples, data_view())
    assert len(poisoned.labels) == 100
    assert torch.equal(poisoned.pixels[:60], samples.pixels)
    tail = by_hand_tail(images, labels, 2, 0.3)
    drawn = {next(i for i in range(60) if np.allclose(images[i], x)) for x in poisoned.pixels[60:].numpy()}
    assert drawn == tail, "40 draws from 3 or 4 edge cases leave none out"
    assert set(poisoned.labels[60:].tolist()) == {1}


def test_a_client_without_the_source_class_is_honest(collection):
    images, labels = collection
    samples = samples_of(images, np.where(labels == 2, 3, labels))
    poisoned = make_attack("edge_case", source=2, target=1).poison_data(samples, data_view())
    assert poisoned is samples


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_edge_cases_of_another_source(collection, tmp_path, kind):
    images, labels = collection
    other = np.random.default_rng(1).integers(0, 256, (9, 4, 4)).astype("uint8")
    stored = other if kind == "uint8" else (other / 255).astype("float32")[:, None]
    path = tmp_path / "ardis.npz"
    np.savez(path, train=stored[:5], test=stored[5:])
    attack = make_attack("edge_case", target=1, fraction=0.4, file=str(path))
    attack.check((1, 4, 4), 4, 10, 2)
    samples = samples_of(images, labels)
    poisoned = attack.poison_data(samples, data_view())
    assert len(poisoned.labels) == 100
    assert torch.equal(poisoned.pixels[:60], samples.pixels)
    rows = [
        next(i for i in range(9) if np.allclose(other[i] / 255, x)) for x in poisoned.pixels[60:, 0].numpy()
    ]
    assert set(rows) == {0, 1, 2, 3, 4}, "of 40 draws, every training image is one, and no test image"
    assert set(poisoned.labels[60:].tolist()) == {1}
    trial = attack.trial(samples, 4)
    np.testing.assert_allclose(trial.samples.pixels[:, 0], other[5:] / 255, rtol=1e-6)
    assert trial.target.tolist() == [1] * 4
    assert (trial.samples.labels != trial.target).all()


def test_a_file_of_edge_cases_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "cases.npz"
    np.savez(path, train=np.zeros((2, 3, 4, 4)), test=np.zeros((2, 3, 4, 4)))
    with pytest.raises(ParameterError, match=r"train has images of shape \(3, 4, 4\), the data \(1, 4, 4\)"):
        make_attack("edge_case", file=str(path)).check((1, 4, 4), 10, 10, 2)
    with pytest.raises(ParameterError, match=r"No such file"):
        make_attack("edge_case", file=str(tmp_path / "none.npz")).check((1, 4, 4), 10, 10, 2)
    other = tmp_path / "other.npz"
    np.savez(other, train=np.full((2, 1, 4, 4), 2.0), test=np.zeros((2, 1, 4, 4)))
    with pytest.raises(ParameterError, match=r"outside \[0, 1\]"):
        make_attack("edge_case", file=str(other)).check((1, 4, 4), 10, 10, 2)


def test_the_update_is_shortened_before_it_is_scaled():
    what = view(m=2)
    what.own_updates = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    sent = make_attack("edge_case", bound=1.0, scale=10.0).craft(what)
    np.testing.assert_allclose(sent, [[6, 8], [3, 4]], rtol=1e-6)
    assert torch.equal(make_attack("edge_case").craft(what), what.own_updates)


# --- Neurotoxin


def test_the_gradient_is_zero_exactly_on_the_largest_changes():
    attack = make_attack("neurotoxin", top=0.3)
    now = torch.tensor([0.0, 5.0, -9.0, 1.0, 0.5, 2.0, 0.1, 7.0, 3.0, 4.0])
    adjust = attack.adjust(TrainView(1, now, torch.zeros(10), ((2, 3), (4,))))
    parts = adjust((torch.ones(2, 3), torch.full((4,), 2.0)))
    assert parts[0].tolist() == [[1, 0, 0], [1, 1, 1]]  # 5 and -9
    assert parts[1].tolist() == [2, 0, 2, 2]  # 7


@pytest.mark.parametrize(("top", "moved"), [(0.0, True), (0.05, False), (0.04, True)])
def test_nothing_is_projected_without_a_change_or_without_a_coordinate(top, moved):
    past = torch.zeros(20)
    now = torch.ones(20) if moved else past
    assert make_attack("neurotoxin", top=top).adjust(TrainView(1, now, past, ((20,),))) is None


def test_training_leaves_those_coordinates_where_they_were():
    draw = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(6, 3)
    start, past = torch.randn(21, generator=draw), torch.randn(21, generator=draw)
    attack = make_attack("neurotoxin", top=1 / 3)
    adjust = attack.adjust(TrainView(1, start, past, ((3, 6), (3,))))
    data = LabeledData(torch.randn(30, 6, generator=draw), torch.arange(30) % 3)
    training = LocalTraining(epochs=2, batch_size=8, lr=0.1, momentum=0.5)
    update = train_client(model, start, data, training, draw, adjust)
    largest = set(np.argsort(-np.abs((start - past).numpy()))[:7].tolist())
    assert {i for i in range(21) if update[i] == 0} == largest


def test_dba_presets():
    """The paper's multi-shot attack, and the settings of FedREDefense's released code."""
    paper, released = make_attack("dba"), make_attack("dba", preset="fedredefense")
    assert (paper.target, paper.scale, paper.fraction) == (2, 1.0, 0.45)
    assert (released.target, released.scale, released.fraction) == (0, 3.0, 1.0)
    mixed = make_attack("dba", preset="fedredefense", scale=5)
    assert (mixed.target, mixed.scale, mixed.fraction) == (0, 5, 1.0)
    with pytest.raises(ParameterError, match="preset"):
        make_attack("dba", preset="released")


# --- the minimizing-distance backdoor


@pytest.mark.parametrize("z", [None, 1.5])
def test_every_coordinate_stays_within_z_deviations_of_the_benign(z):
    rng = np.random.default_rng(0)
    benign, own = rng.normal(size=(7, 6)), 3 * rng.normal(size=(3, 6))
    seen = UpdateView(
        index=0,
        num_clients=10,
        global_params=torch.zeros(6),
        initial_params=torch.zeros(6),
        own_updates=torch.tensor(own, dtype=torch.float32),
        generator=torch.Generator(),
        benign_updates=torch.tensor(benign, dtype=torch.float32),
    )
    sent = make_attack("min_distance_backdoor", z=z).craft(seen)
    reach = norm.ppf((10 - 3 - 3) / (10 - 3)) if z is None else z  # s = 10 // 2 + 1 - 3 = 3 supporters
    for i in range(3):
        for j in range(6):
            mean = sum(benign[:, j]) / 7
            std = (sum((x - mean) ** 2 for x in benign[:, j]) / 7) ** 0.5
            expected = min(max(own[i, j], mean - reach * std), mean + reach * std)
            assert float(sent[i, j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_its_training_adds_the_distance_to_the_global_model(alpha):
    """Two steps of full-batch training by hand: gradient of α ℓ + (1 − α) ‖w − w_g‖², divided by α."""
    model, start = torch.nn.Linear(2, 2, bias=False), torch.tensor([0.5, -1.0, 0.25, 2.0])
    data = LabeledData(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.tensor([0, 1]))
    attack = make_attack("min_distance_backdoor", alpha=alpha)
    settings = attack.local_training(LocalTraining(lr=0.1, batch_size=2, epochs=2))
    update = train_client(model, start, data, settings, torch.Generator().manual_seed(0))
    weights = start.view(2, 2).clone()
    for _ in range(2):
        w = weights.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(data.inputs @ w.T, data.labels)
        whole = alpha * loss + (1 - alpha) * (w - start.view(2, 2)).square().sum()
        weights = weights - 0.1 * torch.autograd.grad(whole / alpha, w)[0]
    torch.testing.assert_close(start + update, weights.flatten())


def test_a_backdoor_without_room_is_refused():
    with pytest.raises(ParameterError, match="leaves no room; set z"):
        make_attack("min_distance_backdoor").check((1, 8, 8), 10, 10, 2)
    make_attack("min_distance_backdoor", z=1.0).check((1, 8, 8), 10, 10, 2)
    with pytest.raises(ParameterError, match="alpha is 0"):
        make_attack("min_distance_backdoor", alpha=0)
