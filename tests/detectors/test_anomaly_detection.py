"""FedSecurity's anomaly detection (three sigma, cross-round check) against loops over local models."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.state import pack, unpack


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    norms = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return dot / norms if norms else 1.0


def federation(seed, count, clients=16, d=12, server=None):
    """Rounds whose global model is not the mean of anybody; client 3 goes astray; some stay away."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=d).astype(np.float32)
    for t in range(count):
        ids = [int(i) for i in rng.permutation(clients) if i == 3 or t == 0 or rng.random() < 0.85]
        updates = (0.3 * rng.normal(size=(len(ids), d))).astype(np.float32)
        if t != 2:
            updates[ids.index(3)] += 9
        yield Round(updates, ids, index=t, global_params=w, server=server)
        w = (w + 0.5 * rng.normal(size=d)).astype(np.float32)


def models_of(round_):
    return {
        client: round_.global_params.numpy().astype(float) + row.numpy().astype(float)
        for client, row in zip(round_.client_ids, round_.updates.matrix, strict=True)
    }


def mean_of(models):
    return sum(models) / len(models)


def first_center(models):
    """The mean of the ⌈n/2⌉ − 1 lowest sums of squared distances to the ⌈n/2⌉ − 1 nearest others."""
    m = math.ceil(len(models) / 2) - 1
    sums = {}
    for i in models:
        distances = sorted(((models[i] - models[j]) ** 2).sum() for j in models if j != i)
        sums[i] = sum(distances[:m])
    return mean_of([models[i] for i in sorted(sums, key=sums.get)[:m]])


@pytest.mark.parametrize("sigmas", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_three_sigma_from_the_mean_of_those_accepted_the_last_time(seed, sigmas):
    detector, center, flagged = make_detector("three_sigma", sigmas=sigmas), None, 0
    for round_ in federation(seed, 5):
        models = models_of(round_)
        center = first_center(models) if center is None else center
        distance = {i: math.sqrt(((model - center) ** 2).sum()) for i, model in models.items()}
        mu = sum(distance.values()) / len(distance)
        sigma = math.sqrt(sum((s - mu) ** 2 for s in distance.values()) / len(distance))
        suspects = {i for i, s in distance.items() if s > mu + sigmas * sigma}
        scores = detector(round_)
        expected = [distance[i] for i in round_.client_ids]
        np.testing.assert_allclose(scores.values, expected, rtol=1e-5)
        assert {i for i, bad in zip(round_.client_ids, scores.suspects, strict=True) if bad} == suspects
        assert scores.info["limit"] == pytest.approx(mu + sigmas * sigma, rel=1e-5)
        assert (3 in suspects) == (round_.index != 2) or sigmas < 3
        detector.commit(round_, scores)
        detector.load_state_dict(unpack(pack(detector.state_dict())))
        center = mean_of([model for i, model in models.items() if i not in suspects])
        flagged += len(suspects)
    assert flagged >= 4


@pytest.mark.parametrize("n", [3, 4, 7, 8, 11])
def test_the_first_center_is_an_m_krum_mean(n):
    for seed in range(20):
        x = np.random.default_rng(seed).standard_t(2, size=(n, 1)).astype(np.float32)
        center = first_center(dict(enumerate(x.astype(float))))
        values = make_detector("three_sigma")(Round(x, global_params=[5.0])).values
        np.testing.assert_allclose(values, np.abs(x - center)[:, 0], rtol=1e-5, atol=1e-6)


def test_equal_distances_are_equal_whatever_their_last_bits():
    start = np.zeros(50)
    for seed in range(20):
        detector, row = make_detector("three_sigma", sigmas=0.0), np.random.default_rng(seed).normal(size=50)
        detector.commit(still := Round(np.zeros((9, 50)), global_params=start), detector(still))
        around = np.array([np.roll(row, k) for k in range(9)])
        assert not detector(Round(around, global_params=start)).suspects.any()


def test_nothing_is_remembered_before_the_commit_and_a_fresh_state_forgets():
    first, second = list(federation(0, 2))
    detector = make_detector("three_sigma")
    fresh = pack(detector.state_dict())
    alone = detector(second).values.tolist()
    detector.commit(first, detector(first))
    assert detector(second).values.tolist() != alone
    detector.load_state_dict(unpack(fresh))
    assert detector(second).values.tolist() == alone


@pytest.mark.parametrize(("n", "flagged"), [(10, False), (11, True)])
@pytest.mark.parametrize("center", ["accepted", "mean", "median", "krum"])
def test_one_outlier_of_eleven_is_three_deviations_out_and_of_ten_is_not(n, flagged, center):
    x = np.zeros((n, 4), dtype=np.float32)
    x[6] = 1e-3
    scores = make_detector("three_sigma", center=center)(Round(x, global_params=np.ones(4)))
    assert scores.suspects.tolist() == [flagged and i == 6 for i in range(n)]


def test_three_sigma_is_one_sided():
    first = Round(np.ones((20, 3)), global_params=np.zeros(3))
    detector = make_detector("three_sigma", sigmas=2.0)
    detector.commit(first, detector(first))
    x = np.eye(20, 3) * 0 + [1, 1, 2.0]
    x[4] = 1  # where everybody was
    assert detector(Round(x, global_params=np.zeros(3))).values[4] < 1e-6
    assert not detector(Round(x, global_params=np.zeros(3))).suspects.any()


def test_two_clients_start_from_their_mean():
    x = np.array([[1.0, 0], [0, 0]], dtype=np.float32)
    scores = make_detector("three_sigma")(Round(x, global_params=np.zeros(2)))
    np.testing.assert_allclose(scores.values, [0.5, 0.5])
    assert not scores.suspects.any()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 3))  # 6, then 9 parameters


@pytest.mark.parametrize("name", ["three_sigma", "cross_round"])
def test_the_last_layer_alone_counts(name):
    server = Server(model=network())
    whole, part = make_detector(name, features="last_layer"), make_detector(name)
    for round_ in federation(3, 3, d=15, server=server):
        last = Round(
            round_.updates.matrix[:, 6:], round_.client_ids, index=round_.index,
            global_params=round_.global_params[6:],
        )  # fmt: skip
        of_whole, of_part = whole(round_), part(last)
        np.testing.assert_allclose(of_whole.values, of_part.values, rtol=1e-9, atol=1e-12)
        assert of_whole.suspects.tolist() == of_part.suspects.tolist()
        whole.commit(round_, of_whole)
        part.commit(last, of_part)
    with pytest.raises(NeedError, match=f"{name} needs model"):
        whole(round_.with_server(model=None))


# --- cross-round check


@pytest.mark.parametrize("on", ["models", "updates"])
@pytest.mark.parametrize("seed", [0, 1])
def test_cross_round_with_the_own_past_and_with_the_global_model(seed, on):
    detector, past, judged = make_detector("cross_round", on=on, threshold=0.6), {}, set()
    for round_ in federation(seed, 6):
        if on == "models":
            now = models_of(round_)
        else:
            now = dict(zip(round_.client_ids, round_.updates.matrix.numpy().astype(float), strict=True))
        expected = []
        for client in round_.client_ids:
            similar = 1.0
            if client in past:
                similar = cosine(now[client], past[client])
                if on == "models":
                    similar = min(similar, cosine(now[client], round_.global_params))
            expected.append(1 - similar)
        scores = detector(round_)
        np.testing.assert_allclose(scores.values, expected, rtol=1e-5, atol=1e-6)
        assert scores.suspects.tolist() == [value > 0.4 for value in expected]
        detector.commit(round_, scores)
        detector.load_state_dict(unpack(pack(detector.state_dict())))
        for client, bad in zip(round_.client_ids, scores.suspects, strict=True):
            judged.add(bool(bad))
            if not bad:
                past[client] = now[client]
    assert judged == {True, False}


def test_a_suspect_is_compared_with_what_it_was_before():
    """Trap: with its own last model as its past, an attacker that stays the same looks calm."""
    detector, w = make_detector("cross_round"), np.ones(4)
    for index, sent in enumerate([0.1, -3.0, -3.0, -3.0, 0.2]):
        round_ = Round([[sent] * 4], ["a"], index=index, global_params=w)
        scores = detector(round_)
        assert scores.suspects.tolist() == [sent < 0]
        detector.commit(round_, scores)


def test_the_global_model_matters_where_the_past_does_not_tell():
    """A client that stays where it was while everybody else has moved on."""
    old, new = np.array([1.0, 0, 0]), np.array([-1.0, 0.2, 0])
    detector = make_detector("cross_round")
    first = Round([[0.0, 0, 0]], ["a"], global_params=old)
    detector.commit(first, detector(first))
    stays = Round([old - new], ["a"], index=1, global_params=new)
    assert detector(stays).suspects.tolist() == [True]
    assert make_detector("cross_round")(stays).values.tolist() == [0.0], "a stranger is not judged"


def test_models_beyond_float32_stay_finite():
    largest = float(np.finfo(np.float32).max)
    round_ = Round([[largest] * 3, [1, 2, 3]], global_params=[largest] * 3)
    for name in ("cross_round", "three_sigma"):
        detector = make_detector(name)
        for _ in range(2):
            scores = detector(round_)
            assert np.isfinite(scores.values).all()
            detector.commit(round_, scores)
        state = detector.state_dict()
        kept = [state["average"]] if name == "three_sigma" else [row for _, row in state["past"]]
        assert all(row.isfinite().all() for row in kept)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("three_sigma", {"sigmas": math.nan}),
        ("three_sigma", {"center": "middle"}),
        ("three_sigma", {"features": "first"}),
        ("cross_round", {"threshold": -1.5}),
        ("cross_round", {"on": "nothing"}),
        ("cross_round", {"features": "first"}),
    ],
)
def test_unknown_choices_are_refused(name, params):
    with pytest.raises(ParameterError):
        make_detector(name, **params)


# --- norm bound


def test_the_bound_of_the_round_is_what_the_server_can_see():
    """Trap: the median of the benign clients. Here it is the median of all, four attackers included."""
    lengths = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.2, 5, 5, 5, 5])
    x = np.zeros((10, 3), dtype=np.float32)
    x[:, 1] = -lengths
    scores = make_detector("norm_bound", factor=1.5)(x)
    bound = 1.5 * (1.1 + 1.2) / 2
    np.testing.assert_allclose(scores.values, lengths / bound, rtol=1e-6)
    assert scores.suspects.tolist() == [length > bound for length in lengths]
    assert scores.info["bound"] == pytest.approx(bound)


def test_a_clean_round_of_like_lengths_has_no_suspect_and_the_bound_itself_is_allowed():
    x = np.random.default_rng(0).normal(size=(30, 200))
    assert not make_detector("norm_bound")(x).suspects.any()
    exact = make_detector("norm_bound", bound=5.0)([[3.0, 4], [3, 4.001], [0, 0]])
    assert exact.suspects.tolist() == [False, True, False]


def test_most_clients_silent():
    scores = make_detector("norm_bound")([[0.0], [1e-30], [0]])
    assert scores.values.tolist() == [0, math.inf, 0]
    assert scores.suspects.tolist() == [False, True, False]
