"""LoRA-Probe against the paper's formulas written out, on a small model with adapters as peft names them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Guard, Round, Server, make_detector, make_policy
from fedguard.core.errors import NeedError, ParameterError, RoundError
from fedguard.core.state import pack, unpack
from fedguard.detectors.lora_probe import trust_factor
from fedguard.training.parameters import flat_parameters, split_parameters
from fedguard.training.places import places
from fedguard.training.probe import Probe, features, first_layer


class Layer(nn.Module):
    """W x + B A x; query and value have adapters."""

    def __init__(self):
        super().__init__()
        for name in ("value", "query"):  # not in the order of their names
            part = nn.Module()
            part.base = nn.Linear(5, 6).requires_grad_(False)
            part.lora_A = nn.ModuleDict({"default": nn.Linear(5, 2, bias=False)})
            part.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})
            self.add_module(name, part)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer() for _ in range(11)])
        self.classifier = nn.Linear(6, 3)


NAMES = ["layers.0.query.lora_B.default.weight", "layers.0.value.lora_B.default.weight"]
IDS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model()


def round_of(model, updates, ids=IDS, index=0, start=None):
    params = flat_parameters(model) if start is None else start
    return Round(updates, ids, global_params=params, index=index, server=Server(model=model))


def drawn(model, seed, n=4):
    return torch.randn(n, len(flat_parameters(model)), generator=torch.Generator().manual_seed(seed))


def flat_feature(model, update):
    """By hand: B of query and value of layer 0, one after the other, of length 1."""
    parts = split_parameters(model, update)
    whole = torch.cat([parts[name].flatten() for name in NAMES]).double().numpy()
    return whole / np.sqrt((whole**2).sum())


def a_probe(model, seed=5, **more):
    draw = np.random.default_rng(seed)
    return {"weight": {n: (4 * draw.normal(size=(6, 2))).tolist() for n in NAMES}, "bias": 0.2, **more}


def probability(model, probe, update):
    weight = np.concatenate([np.ravel(probe["weight"][name]) for name in NAMES])
    return 1 / (1 + math.exp(-(weight @ flat_feature(model, update) + probe["bias"])))


def by_the_paper(s):
    """The factor of a client that the probe takes for harmful with probability s."""
    if s <= 0.8:
        t = 0.5 / (1 + math.exp(-10 * (s / 0.8 - 0.5)))
    else:
        t = 0.5 + 0.5 / (1 + math.exp(-10 * ((s - 0.8) / 0.2 - 0.5)))
    return 1 - t


def test_the_first_layer_is_the_one_of_the_lowest_number_and_its_matrices_are_sorted(model):
    where = places(model, len(flat_parameters(model)))
    assert first_layer(where) == NAMES
    assert first_layer({"layers.10.lora_B.w": 0, "layers.9.lora_B.w": 0}) == ["layers.9.lora_B.w"]
    assert first_layer({"layers.3.experts.0.lora_B.w": 0, "layers.2.x.1.lora_B.w": 0}) == [
        "layers.2.x.1.lora_B.w"
    ]
    with pytest.raises(ParameterError, match="no adapters"):
        first_layer({"1.weight": 0})


def test_the_feature_by_hand(model):
    updates = drawn(model, 1)
    updates[2] = 0  # of length 0: divided by 1
    found = features(round_of(model, updates).updates, places(model, updates.shape[1]), NAMES)
    expected = [flat_feature(model, u) if k != 2 else np.zeros(24) for k, u in enumerate(updates)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-12)


def test_scores_suspects_and_weights_of_one_round(model):
    probe, updates = a_probe(model), drawn(model, 2, 12)
    found = make_detector("lora_probe", probe=probe)(round_of(model, updates, list(range(12))))
    expected = np.array([probability(model, probe, update) for update in updates])
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    assert found.suspects.tolist() == (expected >= 0.8).tolist()
    assert 0 < found.suspects.sum() < 12
    np.testing.assert_allclose(found.weights, [by_the_paper(s) for s in expected], rtol=1e-9)
    scaled = make_detector("lora_probe", probe=probe)(round_of(model, 10 * updates, list(range(12))))
    np.testing.assert_allclose(scaled.values, expected, rtol=1e-6)


def test_the_factor_by_hand():
    """σ(±5) = 0.99331 and 0.00669; both pieces meet a step of 0.0067 apart."""
    table = {0.0: 0.99665, 0.4: 0.75, 0.8: 0.50335, 0.9: 0.25, 1.0: 0.00335}
    assert {s: round(trust_factor(s), 5) for s in table} == table
    for s in np.linspace(0, 1, 101):
        assert trust_factor(s) == pytest.approx(by_the_paper(s), rel=1e-12)
    assert trust_factor(0.25, 0.5) == 0.75


def played(detector, model, rounds):
    """What the detector says of (ids, updates), one round after the other."""
    said = []
    for index, (ids, updates) in enumerate(rounds):
        round = round_of(model, updates, ids, index)
        said.append(detector(round))
        detector.commit(round, said[-1])
    return said


def test_weights_are_means_over_the_rounds_with_the_client_and_freeze(model):
    """Three rounds count: b is missing in the second, e comes in the third, f after that."""
    probe, ids = a_probe(model), [list("abcd"), list("acd"), list("abce"), list("abef"), list("fade")]
    rounds = [(who, drawn(model, 10 + k, 4)[: len(who)]) for k, who in enumerate(ids)]
    said = played(make_detector("lora_probe", probe=probe, rounds=3, skip=0.0), model, rounds)
    past = {}
    for index, (who, updates) in enumerate(rounds):
        expected = []
        for client, update in zip(who, updates, strict=True):
            if index < 3:
                past.setdefault(client, []).append(by_the_paper(probability(model, probe, update)))
            expected.append(np.mean(past[client]) if client in past else 1.0)
        np.testing.assert_allclose(said[index].weights, expected, rtol=1e-9)
        assert said[index].info["mean_weight"] == pytest.approx(np.mean(expected))
    assert said[4].weights[0] == 1.0  # f is never judged
    np.testing.assert_allclose(
        said[3].values, [probability(model, probe, u) for u in rounds[3][1]], rtol=1e-9
    )


def test_a_round_whose_mean_weight_is_too_small_is_skipped_and_still_counts(model):
    probe = {"weight": {name: np.zeros((6, 2)).tolist() for name in NAMES}, "bias": 9.0}  # all are harmful
    guard = Guard(make_detector("lora_probe", probe=probe), make_policy("reweight"))
    outcome = guard.process(round_of(model, drawn(model, 3)))
    assert outcome.weights.tolist() == [0.0] * 4
    assert outcome.kept_global
    assert not outcome.aggregate.any()
    probe["bias"] = -9.0
    half = make_detector("lora_probe", probe=probe, skip=1.0)
    assert half(round_of(model, drawn(model, 3))).weights.tolist() == [0.0] * 4  # 0.9966 is below 1
    (first, second) = played(make_detector("lora_probe", probe=probe, skip=0.9), model, [
        (IDS, drawn(model, 3)), (IDS, drawn(model, 4))
    ])  # fmt: skip
    assert (first.weights > 0.99).all()
    assert first.weights.tolist() == second.weights.tolist()


def test_weights_multiply_the_numbers_of_samples(model):
    probe, updates, counts = a_probe(model), drawn(model, 6), [10, 20, 30, 40]
    round = Round(updates, IDS, counts, global_params=flat_parameters(model), server=Server(model=model))
    outcome = Guard(make_detector("lora_probe", probe=probe), make_policy("reweight")).process(round)
    shares = np.array([by_the_paper(probability(model, probe, u)) for u in updates]) * counts
    torch.testing.assert_close(
        outcome.aggregate, torch.tensor(shares / shares.sum()).float() @ updates, rtol=1e-5, atol=1e-6
    )


def test_the_state_is_kept(model):
    probe, rounds = a_probe(model), [(IDS, drawn(model, 20 + k)) for k in range(4)]
    live, restored = (make_detector("lora_probe", probe=probe, rounds=3) for _ in range(2))
    played(live, model, rounds[:2])
    restored.load_state_dict(unpack(pack(live.state_dict())))
    here, there = (played(d, model, rounds[2:]) for d in (live, restored))
    assert [s.weights.tolist() for s in here] == [s.weights.tolist() for s in there]
    assert (
        here[1].weights.tolist() == here[0].weights.tolist()
    )  # frozen: the third round was restored's first
    for wrong in ([2.0, 1.0], [0.5, 0.0], [math.nan, 1.0], [0.5], "x"):
        with pytest.raises(ParameterError, match="a state holds another value"):
            restored.load_state_dict({"done": 1, "factors": [["a", wrong]]})


def test_without_a_probe_it_says_how_to_get_one(model):
    detector = make_detector("lora_probe")
    with pytest.raises(NeedError, match=r"set `probe` to its file; `fedguard probe RECORDING… --out FILE`"):
        detector.check(4, frozenset({"model", "global_params"}))
    with pytest.raises(NeedError, match="needs a trained probe"):
        detector(round_of(model, drawn(model, 0)))


def test_a_probe_of_another_model_is_refused_and_no_client_is_blamed(model, tmp_path):
    probe = a_probe(model)
    guard = Guard(make_detector("lora_probe", probe=probe))
    plain = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ParameterError, match=r"layers\.0\.query.* missing .*no adapters at all; train"):
        guard.process(Round(torch.ones(4, 8), global_params=torch.zeros(8), server=Server(model=plain)))
    assert guard.ledger.clients() == []
    probe["weight"][NAMES[0]] = np.zeros((2, 6)).tolist()
    path = tmp_path / "p.safetensors"
    weight = {name: torch.tensor(value) for name, value in probe["weight"].items()}
    Probe(weight, 0.0).save(path)
    with pytest.raises(
        ParameterError, match=r"p\.safetensors was trained on another model: .*\(2, 6\) is of"
    ):
        make_detector("lora_probe", probe=str(path))(round_of(model, drawn(model, 0)))
    with pytest.raises(RoundError, match="the model has a different number"):
        make_detector("lora_probe", probe=probe)(
            Round(torch.ones(4, 8), global_params=torch.zeros(8), server=Server(model=model))
        )


def test_another_start_is_refused_in_the_first_round_only(model):
    downs = [name.replace("lora_B", "lora_A") for name in NAMES]
    named = split_parameters(model, flat_parameters(model))
    own = {name: named[name].tolist() for name in downs}
    other = {name: torch.randn(2, 5, generator=torch.Generator().manual_seed(9)).tolist() for name in downs}
    there = torch.cat([torch.tensor(other[name]).flatten() for name in downs])
    here = torch.cat([named[name].flatten() for name in downs])
    cosine = float(here @ there / here.norm() / there.norm())
    assert abs(cosine) < 0.5
    first = round_of(model, drawn(model, 0))
    with pytest.raises(ParameterError, match=f"cosine of the matrices A is {cosine:.2f}; give the model the"):
        make_detector("lora_probe", probe=a_probe(model, start=other))(first)
    lenient = make_detector("lora_probe", probe=a_probe(model, start=other), same_start=False)
    assert lenient(first).info["same_start"] == pytest.approx(cosine, abs=1e-6)
    detector = make_detector("lora_probe", probe=a_probe(model, start=own))
    assert detector(first).info["same_start"] == pytest.approx(1.0)
    detector.commit(first, detector(first))
    moved = round_of(model, drawn(model, 1), index=1, start=-flat_parameters(model))  # A was trained since
    assert detector(moved).info["same_start"] == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"rounds": -1}, "rounds is -1"),
        ({"skip": 1.5}, "skip is 1.5"),
        ({"probe": {"weight": {}, "bias": 0}}, "weight for at least one parameter"),
        ({"probe": {"weight": {"a": [1.0]}}}, "it has no 'bias'"),
        ({"probe": {"weight": {"a": [1.0]}, "bias": "x"}}, "could not convert"),
        ({"probe": {"weight": {"a": [float("nan")]}, "bias": 0}}, "a is not made of finite numbers"),
        ({"probe": {"weight": {"a": [[1.0], [2.0, 3.0]]}, "bias": 0}}, "expected sequence of length 1"),
        ({"probe": {"weight": {"a": [1.0]}, "bias": 0, "code": 1}}, "unknown key 'code'"),
    ],
)
def test_what_does_not_fit_is_refused(params, words):
    with pytest.raises(ParameterError, match=words):
        make_detector("lora_probe", **params)
