"""FoolsGold against plain loops in float64 (Fung et al., Algorithm 1) and small cases done by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Guard, Round, Server, make_detector, make_policy
from fedguard.core.errors import NeedError, ParameterError, RoundError
from fedguard.core.state import pack, unpack


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    norms = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return dot / norms if norms else 0.0


def weights_by_hand(histories):
    n = len(histories)
    cs = [[0.0 if i == j else cosine(histories[i], histories[j]) for j in range(n)] for i in range(n)]
    v = [max(row) for row in cs]
    for i in range(n):
        for j in range(n):
            if v[j] > v[i]:
                cs[i][j] *= v[i] / v[j]
    w = [min(1.0, max(0.0, 1 - max(row))) for row in cs]
    top = max(w)
    result = []
    for value in w:
        share = value / top
        share = 0.99 if share == 1 else share
        logit = math.log(share / (1 - share)) + 0.5 if share > 0 else -math.inf
        result.append(min(1.0, max(0.0, logit)))
    return result


def rounds(seed, count, clients=6, d=9):
    """Rounds in which clients 0 and 1 push the same way and the others do not; some stay away."""
    rng = np.random.default_rng(seed)
    goal = rng.normal(size=d)
    for t in range(count):
        ids = [i for i in rng.permutation(clients) if t == 0 or rng.random() < 0.8]
        updates = [(goal if i < 2 else 0) + rng.normal(size=d) * (0.3 if i < 2 else 1) for i in ids]
        yield [int(i) for i in ids], np.array(updates, dtype=np.float32)


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_weights_follow_the_algorithm_over_several_rounds(memory, seed):
    detector = make_detector("foolsgold", memory=memory)
    histories = {}
    for t, (ids, updates) in enumerate(rounds(seed, 5)):
        for client, update in zip(ids, updates, strict=True):
            before = histories.get(client, 0) if memory else 0
            histories[client] = before + update.astype(np.float64)
        scores = detector(round_ := Round(updates, client_ids=ids, index=t))
        detector.commit(round_, scores)
        by_hand = weights_by_hand([histories[client] for client in ids])
        np.testing.assert_allclose(scores.weights, by_hand, atol=2e-5)
        np.testing.assert_allclose(scores.values, 1 - scores.weights)
        assert (scores.suspects == (scores.weights < 0.5)).all()


def test_sybils_that_only_differ_in_length_get_nothing():
    sybil = np.array([1.0, 2.0, -1.0, 0.3])
    updates = [sybil, 0.1 * sybil, 7.7 * sybil, [2.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.3, 1.0]]
    assert make_detector("foolsgold")(updates).weights.tolist() == [0, 0, 0, 1, 1]


def test_a_case_done_by_hand():
    """cos = 0.6 between clients 0 and 1; client 2 at 0.28 to 1 and -0.6 to 0.

    v = (0.6, 0.6, 0.28); pardoned c_21 = 0.28 * 0.28 / 0.6 = 0.1307, so w = (0.4, 0.4, 0.8693),
    divided by the largest (0.4601, 0.4601, 0.99): logits + 0.5 = (0.3401, 0.3401, 5.1).
    """
    updates = [[0.6, 0.8], [1.0, 0.0], [0.28, -0.96]]
    share = 0.4 / (1 - 0.28 * 0.28 / 0.6)
    low = math.log(share / (1 - share)) + 0.5
    scores = make_detector("foolsgold")(updates)
    np.testing.assert_allclose(scores.weights, [low, low, 1], atol=1e-6)
    assert scores.suspects.tolist() == [True, True, False]


@pytest.mark.parametrize("factor", [1.0, 3.3])
def test_clients_that_are_all_alike_all_get_weight_zero(factor):
    """The case in which dividing by the largest weight would turn rounding errors into full trust."""
    base = np.random.default_rng(0).normal(size=50)
    updates = np.stack([base * factor**i for i in range(5)]).astype(np.float32)
    scores = make_detector("foolsgold")(updates)
    assert scores.weights.tolist() == [0] * 5
    assert scores.values.tolist() == [1] * 5


def test_zero_histories_and_a_lone_client_are_similar_to_nobody():
    assert make_detector("foolsgold")([[1.0, 2.0]]).weights.tolist() == [1]
    assert make_detector("foolsgold")([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]]).weights.tolist() == [1, 1, 1]


def test_an_absurd_history_does_not_blind_the_method():
    detector = make_detector("foolsgold")
    updates = torch.tensor([[3e38, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    for t in range(3):
        scores = detector(round_ := Round(updates, index=t))
        detector.commit(round_, scores)
    assert scores.weights[2:].tolist() == [0, 0]


def test_last_layer_looks_at_the_last_weight_and_bias_only():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))  # 12 + 3, then 6 + 2
    rng = np.random.default_rng(1)
    updates = rng.normal(size=(5, 23)).astype(np.float32)
    updates[1, 15:] = 2 * updates[0, 15:]
    detector = make_detector("foolsgold", features="last_layer")
    scores = detector(round_ := Round(updates, server=Server(model=model)))
    np.testing.assert_allclose(scores.weights, weights_by_hand(updates[:, 15:]), atol=1e-6)
    detector.commit(round_, scores)
    assert {len(history) for _, history in detector.state_dict()["history"]} == {8}
    with pytest.raises(NeedError, match="model"):
        detector(updates)
    with pytest.raises(RoundError, match="22"):
        detector(Round(updates[:, 1:], server=Server(model=model)))


def test_integer_and_string_ids_survive_the_state():
    detector = make_detector("foolsgold")
    first = Round(np.eye(3, 5, dtype=np.float32), client_ids=[3, "three", -1])
    detector.commit(first, detector(first))
    copy = make_detector("foolsgold")
    copy.load_state_dict(unpack(pack(detector.state_dict())))
    history = {client: row.tolist() for client, row in copy.state_dict()["history"]}
    assert history == {3: [1, 0, 0, 0, 0], "three": [0, 1, 0, 0, 0], -1: [0, 0, 1, 0, 0]}


def test_a_client_that_left_keeps_its_own_history_alive_and_no_more():
    detector = make_detector("foolsgold")
    round_ = Round(np.eye(4, 50, dtype=np.float32))
    detector.commit(round_, detector(round_))
    for _, history in detector.state_dict()["history"]:
        assert history.untyped_storage().nbytes() == 50 * 4


def test_reweighting_is_the_original_algorithm():
    """Σ w_i u_i / Σ w_i with FoolsGold's weights; the two that push the same way hardly count."""
    (ids, updates), *_ = rounds(seed=4, count=1)
    outcome = Guard(make_detector("foolsgold"), make_policy("reweight")).process(
        Round(updates, client_ids=ids)
    )
    weights = np.array(weights_by_hand(updates))
    np.testing.assert_allclose(outcome.weights, weights, atol=1e-6)
    np.testing.assert_allclose(outcome.aggregate, weights @ updates / weights.sum(), atol=1e-5)


def test_unknown_features_are_refused():
    with pytest.raises(ParameterError, match="features"):
        make_detector("foolsgold", features="first_layer")
