"""ERR, LFR and Union against a naive leave-one-out in float64 NumPy (Fang et al. 2020, §5).

Model, aggregation rules, error rate and loss are written out here again: nothing is shared with the
engine but the numbers.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Guard, LabeledData, Round, Server, make_aggregator, make_detector, make_policy
from fedguard.core.errors import NeedError, ParameterError, TooFewClientsError

FEATURES, CLASSES, SAMPLES = 6, 3, 60
D = CLASSES * FEATURES + CLASSES


def mean(updates, counts):
    return sum(c * u for c, u in zip(counts, updates, strict=True)) / sum(counts)


def median(updates, counts):
    n = len(updates)
    columns = [sorted(column) for column in zip(*updates, strict=True)]
    return np.array([(c[(n - 1) // 2] + c[n // 2]) / 2 for c in columns])


def krum(updates, counts, f=1):
    n = len(updates)
    totals = []
    for i in range(n):
        distances = sorted(float(((updates[i] - updates[j]) ** 2).sum()) for j in range(n) if j != i)
        totals.append(sum(distances[: n - f - 2]))
    return updates[totals.index(min(totals))]


RULES = {
    "mean": (mean, {}),
    "median": (median, {}),
    "krum": (krum, {"num_malicious": 1}),
}


def evaluate(parameters, inputs, labels):
    """Error rate and mean cross-entropy of softmax regression, sample by sample."""
    weight, bias = parameters[: -1 * CLASSES].reshape(CLASSES, FEATURES), parameters[-CLASSES:]
    wrong = loss = 0.0
    for x, y in zip(inputs, labels, strict=True):
        logits = weight @ x + bias
        wrong += int(logits.argmax()) != y
        top = logits.max()
        loss += math.log(sum(math.exp(v - top) for v in logits)) + top - logits[y]
    return wrong / len(labels), loss / len(labels)


def impacts_by_hand(round_, aggregate):
    updates, base = round_.updates.matrix.double().numpy(), round_.global_params.double().numpy()
    data = (round_.server.validation.inputs.double().numpy(), round_.server.validation.labels.numpy())
    counts = round_.num_examples
    error, loss = evaluate(base + aggregate(updates, counts), *data)
    impacts = []
    for i in range(round_.n):
        rest = [j for j in range(round_.n) if j != i]
        e, other = evaluate(base + aggregate(updates[rest], counts[rest]), *data)
        impacts.append((error - e, loss - other))
    return impacts


def removed_by_hand(impacts, ids, c):
    """The c largest; of equal ones the later id."""
    order = sorted(range(len(ids)), key=lambda i: (round(impacts[i], 9), ids[i]))
    return {ids[i] for i in order[len(ids) - c :]}


def a_round(seed, n=8, rule=None, **params):
    """Clients that all move towards the solution, but for two that move away."""
    rng = np.random.default_rng(seed)
    solution = rng.normal(size=D)
    inputs = rng.normal(size=(SAMPLES, FEATURES))
    labels = (inputs @ solution[:-CLASSES].reshape(CLASSES, FEATURES).T + solution[-CLASSES:]).argmax(1)
    updates = 0.4 * solution + 0.5 * rng.normal(size=(n, D))
    updates[:2] -= 2.5 * solution
    server = Server(
        model=nn.Linear(FEATURES, CLASSES),
        validation=LabeledData(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)),
        aggregator=None if rule is None else make_aggregator(rule, **params),
    )
    return Round(
        updates,
        client_ids=[int(i) for i in rng.permutation(n)],
        num_examples=rng.integers(50, 200, size=n),
        global_params=torch.tensor(0.1 * rng.normal(size=D)),
        server=server,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("c", [None, 0, 2])
def test_leave_one_out_under_the_rule_in_use(rule, seed, c):
    aggregate, params = RULES[rule]
    round_ = a_round(seed, rule=rule, **params)
    by_hand = np.array(impacts_by_hand(round_, aggregate))
    count = (round_.n - 1) // 2 if c is None else c
    expected = [removed_by_hand(by_hand[:, k], round_.client_ids, count) for k in (0, 1)]
    found = {}
    for name in ("err", "lfr", "union"):
        scores = make_detector(name, num_malicious=c)(round_)
        found[name] = {i for i, s in zip(round_.client_ids, scores.suspects, strict=True) if s}
        if name != "union":
            np.testing.assert_allclose(scores.values, by_hand[:, int(name == "lfr")], atol=2e-6)
        else:  # the highest scores are the suspects, and only they
            kept = scores.values[~scores.suspects]
            assert not len(kept) or (scores.values[scores.suspects] > kept.max()).all()
    assert found == {"err": expected[0], "lfr": expected[1], "union": expected[0] | expected[1]}


def test_the_rule_in_use_makes_a_difference():
    """The cases above would notice if all three rules were taken for the mean."""
    impacts = {rule: impacts_by_hand(a_round(0), aggregate) for rule, (aggregate, _) in RULES.items()}
    assert not np.allclose(impacts["mean"], impacts["median"], atol=1e-3)
    assert not np.allclose(impacts["mean"], impacts["krum"], atol=1e-3)


def test_the_guard_lends_its_own_rule():
    round_ = a_round(5)
    outcome = Guard(make_detector("lfr"), make_policy("observe"), make_aggregator("median")).process(round_)
    expected = [loss for _, loss in impacts_by_hand(round_, median)]
    np.testing.assert_allclose(outcome.scores, expected, atol=2e-6)


def test_equal_impacts_are_decided_by_client_id_not_by_position():
    round_ = a_round(0)
    same = Round(
        round_.updates.matrix[:1].expand(5, -1),
        client_ids=["b", 10, "a", 9, 2],
        global_params=round_.global_params,
        server=round_.server,
    )
    for name in ("err", "lfr", "union"):
        scores = make_detector(name, num_malicious=2)(same)
        assert scores.suspects.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("name", ["err", "lfr", "union"])
def test_leaving_out_the_only_client_keeps_the_global_model(name):
    round_ = a_round(1)
    alone = round_.take([0])
    data = (round_.server.validation.inputs.double().numpy(), round_.server.validation.labels.numpy())
    base, update = round_.global_params.double().numpy(), round_.updates.matrix[0].double().numpy()
    difference = np.subtract(evaluate(base + update, *data), evaluate(base, *data))
    scores = make_detector(name)(alone)
    assert not scores.suspects.any()
    if name != "union":
        np.testing.assert_allclose(scores.values, difference[int(name == "lfr")], atol=2e-6)


def test_a_loss_beyond_all_numbers_is_infinite_and_never_nan():
    round_ = a_round(2)
    matrix = round_.updates.matrix.clone()
    matrix[3] = 3e38 * torch.tensor([1.0, -1.0]).repeat(D)[:D]  # logits overflow, the loss is NaN
    one = Round(matrix, global_params=round_.global_params, server=round_.server)
    scores = make_detector("lfr", num_malicious=1)(one)
    assert scores.values.tolist() == [0, 0, 0, math.inf, 0, 0, 0, 0]
    assert np.flatnonzero(scores.suspects).tolist() == [3]
    matrix[5] = -matrix[3]
    two = Round(matrix, global_params=round_.global_params, server=round_.server)
    assert not np.isnan(make_detector("lfr")(two).values).any()


@pytest.mark.parametrize("name", ["err", "lfr", "union"])
def test_the_rule_must_be_defined_for_one_client_less(name):
    round_ = a_round(0, rule="krum", num_malicious=2)
    assert make_detector(name)(round_.take(range(6))).values.shape == (6,)
    with pytest.raises(TooFewClientsError, match="krum needs at least 5 clients: the round has 5, 6 are"):
        make_detector(name)(round_.take(range(5)))
    with pytest.raises(TooFewClientsError, match="at least 5"):
        make_detector(name, num_malicious=4)(a_round(0, n=4))


@pytest.mark.parametrize("name", ["err", "lfr", "union"])
def test_refuses_a_negative_count_and_a_round_without_a_server(name):
    with pytest.raises(ParameterError, match=f"{name}: num_malicious"):
        make_detector(name, num_malicious=-1)
    with pytest.raises(NeedError):
        make_detector(name).score(Round(np.eye(3)))


def test_models_are_measured_in_eval_mode_and_left_alone():
    round_ = a_round(3)
    model = nn.Sequential(nn.Dropout(0.9), nn.Linear(FEATURES, CLASSES)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = make_detector("lfr")(round_).values
    assert make_detector("lfr")(round_.with_server(model=model)).values.tolist() == plain.tolist()
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_err_lfr_and_union_share(monkeypatch):
    """One evaluation per different model of a round; a rule that may remember something is asked again."""
    import fedguard.detectors._impact as shared

    calls = []
    evaluate_ = shared.error_and_loss
    monkeypatch.setattr(shared, "error_and_loss", lambda *a: calls.append(1) or evaluate_(*a))

    def evaluations(rule, names):
        calls.clear()
        base = a_round(0).with_server(aggregator=make_aggregator(rule))
        values = [make_detector(name)(base).values for name in names]
        count = len(calls)
        alone = [make_detector(name)(base.with_server()).values for name in names]
        for a, b in zip(values, alone, strict=True):
            assert a.tolist() == b.tolist()
        return count

    n = a_round(0).n
    assert evaluations("median", ["err"]) == n + 1
    assert evaluations("median", ["err", "lfr", "union"]) == n + 1
    assert evaluations("geometric_median", ["err", "lfr"]) == 2 * (n + 1)
    assert evaluations("krum", ["lfr"]) <= 4, "Krum chooses one of very few clients"
