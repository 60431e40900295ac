"""What is learned, a statistic, frozen or a counter, and what becomes of each."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import Card, Guard, LabeledData, Server, make_detector, make_policy
from fedguard.contracts.detector import Detector
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError, RoundError
from fedguard.exchange.roles import by_model, by_name
from fedguard.exchange.template import Template, weighted_median


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def arrays_of(state):
    return [tensor.numpy() for tensor in state.values()]


def sent(state, seed, step=0.05, **changes):
    """A client's state dict: parameters a little on, statistics its own, counters counted up."""
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            out[name] = tensor + 1
        elif "running" in name:
            out[name] = tensor + 0.1 * torch.rand(tensor.shape, generator=draw)
        else:
            out[name] = tensor + step + 0.01 * torch.randn(tensor.shape, generator=draw)
    return {**out, **{name: torch.full_like(state[name], value) for name, value in changes.items()}}


ROLES = [
    "learned",
    "learned",
    "learned",
    "learned",
    "statistic",
    "statistic",
    "counter",
    "learned",
    "learned",
]


class Seen(Detector):
    """Remembers the round."""

    card = Card("seen", "remembers rounds", "FedGuard")

    def __init__(self, needs=()):
        self.needs = frozenset(needs)
        self.rounds = []

    def score(self, round):
        self.rounds.append(round)
        return Scores(np.zeros(round.n), np.zeros(round.n, dtype=bool), "nothing")


# --- what is what


def test_roles_by_name_and_by_model_agree():
    model = network()
    names, arrays = list(model.state_dict()), arrays_of(model.state_dict())
    assert list(by_name(names, arrays).roles) == ROLES
    assert list(by_model(model, names, arrays, False).roles) == ROLES
    assert list(by_model(model, None, arrays, False).roles) == ROLES, "by position"
    parameters = [p.detach().numpy() for p in model.parameters()]
    assert set(by_model(model, None, parameters, False).roles) == {"learned"}
    assert by_name(["bn/moving_mean:0", "x.num_batches_tracked"], [np.zeros(1), np.zeros(())]).roles == (
        "statistic",
        "counter",
    )


def test_what_needs_no_gradient_is_frozen_unless_nothing_does():
    model = network()
    model[0].requires_grad_(False)
    names, arrays = list(model.state_dict()), arrays_of(model.state_dict())
    assert by_model(model, names, arrays, False).roles[:3] == ("frozen", "frozen", "learned")
    model.requires_grad_(False)
    assert list(by_model(model, names, arrays, False).roles) == ROLES, "a server's model for evaluation"


def test_an_adapter_is_a_part_of_the_model_unless_a_method_needs_the_whole():
    model = network()
    names, arrays = ["3.weight", "3.bias"], [p.detach().numpy() for p in model[3].parameters()]
    assert by_model(model, names, arrays, False).roles == ("learned", "learned")
    with pytest.raises(ParameterError, match=r"'0\.weight' of the model has no array of shape"):
        by_model(model, names, arrays, True)


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["learned"] * 8, "roles has 8 entries, the global model has 9 arrays"),
        ([*ROLES[:8], "trained"], "array 8 is 'trained'; use one of learned, statistic, frozen, counter"),
        (["learned"] * 9, "array 6 is 'learned' but holds int64; use 'counter' or 'frozen'"),
        ("learned", "roles is a str; give a list"),
        (["frozen"] * 9, "no floating-point array that is learned"),
    ],
)
def test_wrong_roles_are_refused(roles, message):
    arrays = arrays_of(network().state_dict())
    with pytest.raises((ParameterError, RoundError), match=message):
        Guard().process_arrays({0: arrays}, arrays, roles=roles)


# --- what becomes of each


def test_statistics_are_the_median_of_the_accepted_and_never_scored():
    state = network().state_dict()
    clients = {c: sent(state, c) for c in range(6)}
    clients[6] = sent(state, 6, **{"1.running_var": 1e12, "1.running_mean": -1e12})
    clients[7] = sent(state, 7, step=-5.0, **{"1.running_var": 3.0})
    guard = Guard([seen := Seen(), make_detector("dnc", num_malicious=1)])
    lists = {c: arrays_of(reply) for c, reply in clients.items()}
    outcome, new = guard.process_arrays(lists, arrays_of(state), roles=ROLES)
    assert outcome.weights.tolist() == [1] * 7 + [0], (
        "an honest-looking update passes, whatever its statistics"
    )
    assert seen.rounds[0].updates.d == sum(p.numel() for p in network().parameters())
    expected = np.median([arrays_of(clients[c])[5] for c in range(7)], axis=0)
    np.testing.assert_allclose(new[5], expected, rtol=1e-6)
    honest = np.array([arrays_of(clients[c])[4] for c in range(6)])
    assert (new[4] >= honest.min(0)).all()
    assert (new[4] <= honest.max(0)).all()
    assert new[6] == state["1.num_batches_tracked"], "counters stay the server's"
    again, same = Guard(make_detector("dnc", num_malicious=1)).process_state_dicts(clients, state)
    assert again.weights.tolist() == outcome.weights.tolist()
    for one, other in zip(new, same.values(), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_other_data_is_no_attack_and_an_attack_is_found():
    state = network().state_dict()
    clients = {c: sent(state, c) for c in range(8)}
    clients[8] = sent(state, 8, **{"1.running_var": 9.0, "1.running_mean": 2.0})  # another image contrast
    clients[9] = sent(state, 9, step=-0.05)
    for name in ("dnc", "krum"):
        options = {"select": "m_krum"} if name == "krum" else {}
        guard = Guard(make_detector(name, num_malicious=1, **options))
        outcome, _ = guard.process_state_dicts(clients, state)
        assert [c for c, w in zip(outcome.client_ids, outcome.weights, strict=True) if w == 0] == [9]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_statistic_that_is_not_finite_is_its_senders_fault(value):
    state = network().state_dict()
    clients = {c: arrays_of(sent(state, c)) for c in range(4)}
    clients[3][5] = np.full(3, value)
    outcome, new = Guard().process_arrays(clients, arrays_of(state), roles=ROLES)
    assert outcome.weights.tolist() == [1, 1, 1, 0]
    assert "array 5 holds NaN or Inf" in outcome.reasons[3]
    assert np.isfinite(new[5]).all()


def test_what_is_frozen_or_a_counter_stays_the_servers_whatever_is_sent():
    state = network().state_dict()
    roles = ["frozen", "frozen", *ROLES[2:]]
    clients = {c: arrays_of(sent(state, c)) for c in range(3)}
    clients[1][0] = np.full((3, 4), np.nan, dtype=np.float32)
    clients[2][6] = np.array(-(10**9))
    outcome, new = Guard(seen := Seen()).process_arrays(clients, arrays_of(state), roles=roles)
    assert outcome.weights.tolist() == [1, 1, 1]
    assert seen.rounds[0].updates.d == 3 + 3 + 6 + 2
    for k in (0, 1, 6):
        np.testing.assert_array_equal(new[k], arrays_of(state)[k])
    clients[2][6] = np.array([1, 2])
    outcome, _ = Guard().process_arrays(clients, arrays_of(state), roles=roles)
    assert outcome.weights.tolist() == [1, 1, 0], "shapes must fit all the same"


def test_nobody_accepted_leaves_the_statistics_alone():
    state = network().state_dict()
    guard = Guard(seen := Seen())
    seen.score = lambda round: Scores(np.ones(round.n), np.ones(round.n, dtype=bool), "all")
    outcome, new = guard.process_state_dicts({c: sent(state, c) for c in range(3)}, state)
    assert outcome.kept_global
    assert all(torch.equal(new[name], state[name]) for name in state)


def test_differences_of_statistics_are_added_first():
    state = network().state_dict()
    clients = {c: sent(state, c) for c in range(3)}
    deltas = {c: {name: reply[name] - state[name] for name in state} for c, reply in clients.items()}
    _, whole = Guard().process_state_dicts(clients, state)
    _, moved = Guard().process_state_dicts(deltas, state, deltas=True)
    for name in state:
        torch.testing.assert_close(whole[name], moved[name])


def test_a_method_that_needs_the_model_gets_all_parameters_and_the_current_statistics():
    model = network()
    model[0].requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["1.running_mean"] += 7
    data = LabeledData(torch.randn(8, 4), torch.arange(8) % 2)
    server = Server(model=model, validation=data, num_classes=2, input_shape=(4,))
    guard = Guard(seen := Seen(["model"]))
    _, new = guard.process_state_dicts({c: sent(state, c) for c in range(3)}, state, server=server)
    (round,) = seen.rounds
    assert round.updates.d == sum(p.numel() for p in model.parameters())
    assert not round.updates.matrix[:, : 12 + 3].any(), "frozen parameters do not move"
    assert torch.equal(new["0.weight"], state["0.weight"])
    assert torch.equal(round.server.model[1].running_mean, state["1.running_mean"])
    assert not torch.equal(model[1].running_mean, state["1.running_mean"]), "on a copy"
    guard = Guard(make_detector("lfr", num_malicious=1))
    outcome, _ = guard.process_state_dicts({c: sent(state, c) for c in range(5)}, state, server=server)
    assert (outcome.weights > 0).any()


def test_roles_and_a_method_that_needs_the_model_go_together():
    model = network()
    data = LabeledData(torch.randn(8, 4), torch.arange(8) % 2)
    server = Server(model=model, validation=data, num_classes=2, input_shape=(4,))
    start = arrays_of(model.state_dict())
    replies = {c: arrays_of(sent(model.state_dict(), c)) for c in range(5)}
    roles = ["frozen", "frozen", *ROLES[2:]]
    guard = Guard(make_detector("lfr", num_malicious=1))
    outcome, new = guard.process_arrays(replies, start, server=server, roles=roles)
    assert (outcome.weights > 0).any()
    assert (new[0] == start[0]).all()
    assert (new[7] != start[7]).any()


def test_weighted_medians():
    values = np.array([[1.0, 5.0], [2.0, -1e300], [3.0, 6.0], [100.0, 7.0]])
    np.testing.assert_allclose(weighted_median(values, np.ones(4)), np.median(values, axis=0))
    np.testing.assert_allclose(weighted_median(values[:3], np.full(3, 0.1)), [2.0, 5.0])
    np.testing.assert_allclose(weighted_median(values, np.array([1.0, 1.0, 1.0, 9.0])), [100.0, 7.0])


@pytest.mark.parametrize("seed", range(30))
def test_a_minority_cannot_move_a_statistic_out_of_the_majoritys_range(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    weights = rng.choice([1.0, 0.5, 0.1, 1 / 3], n)
    order = rng.permutation(n)
    minority = order[np.cumsum(weights[order]) < weights.sum() / 2 * (1 - 1e-9)]
    values = rng.normal(size=(n, 5))
    rest = np.delete(values, minority, axis=0)
    values[minority] = rng.choice([-1e300, 1e300, 0.0], (len(minority), 5))
    middle = weighted_median(values, weights)
    assert ((middle >= rest.min(0)) & (middle <= rest.max(0))).all()


# --- state dicts


def test_a_state_dict_comes_back_as_it_was():
    state = network().to(torch.bfloat16).state_dict()
    before = copy.deepcopy(state)
    _, new = Guard().process_state_dicts({c: sent(state, c) for c in range(3)}, state)
    assert list(new) == list(state)
    assert [(t.dtype, t.shape, t.device) for t in new.values()] == [
        (t.dtype, t.shape, t.device) for t in state.values()
    ]
    network().to(torch.bfloat16).load_state_dict(new)
    assert all(torch.equal(before[name], state[name]) for name in state)
    assert all(new[n].data_ptr() != state[n].data_ptr() for n in state), "nothing is shared"


def test_tied_weights_count_once_and_stay_equal():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    state = model.state_dict()
    clients = {c: sent(state, c) for c in range(3)}
    for server in (None, Server(model=model)):
        _, new = Guard(seen := Seen()).process_state_dicts(clients, state, server=server)
        assert seen.rounds[0].updates.d == 9 + 3 + 3
        assert torch.equal(new["0.weight"], new["1.weight"])
        assert not torch.equal(new["0.weight"], state["0.weight"])


STATE = network().state_dict()
BAD = {
    "nothing": (None, "it sent nothing"),
    "a list": (list(STATE.values()), "it sent a list, not a state_dict"),
    "a missing key": ({k: v for k, v in STATE.items() if k != "3.bias"}, "its '3.bias' is missing"),
    "an extra key": ({**STATE, "x": torch.ones(1)}, "its 'x' does not belong to the model"),
    "an extra key that is no text": ({**STATE, 7: torch.ones(1)}, "its '7' does not belong to the model"),
    "another shape": ({**STATE, "3.bias": torch.ones(3)}, r"its '3.bias' has shape \(3,\), the model's has"),
    "no tensor": ({**STATE, "3.bias": object()}, "its '3.bias' is a object, not an array"),
    "integers": ({**STATE, "3.bias": torch.ones(2).int()}, "its '3.bias' has dtype torch.int32"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_state_dict_is_its_senders_fault_but_not_if_all_are(case):
    reply, message = BAD[case]
    clients = {c: sent(STATE, c) for c in range(3)}
    guard = Guard(policy=make_policy("ban", strikes=1))
    with pytest.raises(RoundError, match=f"all 3 replies have the same fault.*{message}"):
        guard.process_state_dicts(dict.fromkeys(clients, reply), STATE)
    assert guard.ledger.clients() == [], "nothing is remembered"
    outcome, _ = guard.process_state_dicts({**clients, 9: reply}, STATE)
    assert outcome.banned.tolist() == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(2)], "global_state_dict is a list; give model.state_dict"),
        ({"a": object()}, "'a' of the global model has dtype object"),
        ({"a": None}, "'a' of the global model is a NoneType"),
        ({"a": torch.eye(2).to_sparse()}, "'a' of the global model is a tensor"),
        ({"a.running_mean": torch.ones(2)}, "no floating-point array that is learned"),
        (
            {"a": torch.ones(2), "running_var": torch.tensor([np.inf])},
            "'running_var' of the global model holds",
        ),
    ],
)
def test_a_global_state_dict_that_is_none_is_the_servers_mistake(state, message):
    with pytest.raises(RoundError, match=message):
        Guard().process_state_dicts({0: {}}, state)


def test_roles_of_single_names_can_be_given():
    clients = {c: sent(STATE, c) for c in range(3)}
    _, new = Guard(seen := Seen()).process_state_dicts(clients, STATE, roles={"0.weight": "frozen"})
    assert torch.equal(new["0.weight"], STATE["0.weight"])
    assert seen.rounds[0].updates.d == 3 + 3 + 3 + 6 + 2
    with pytest.raises(ParameterError, match="no array 'weight'"):
        Guard().process_state_dicts(clients, STATE, roles={"weight": "frozen"})


def test_a_sum_beyond_the_models_dtype_is_clipped_to_it():
    """By hand, in float16: 65504 is the largest number."""
    state = {"w": torch.tensor([65000.0, -65000.0, 1.0], dtype=torch.float16)}
    _, new = Guard().process_state_dicts(
        {c: {"w": torch.tensor([65504.0, -65504.0, 2.0], dtype=torch.float16)} for c in range(3)}, state
    )
    assert new["w"].tolist() == [65504.0, -65504.0, 2.0]
    template = Template([state["w"].numpy()], by_name(["w"], [state["w"].numpy()]), ["w"])
    (moved,) = template.moved(torch.tensor([1e6, -1e6, 1.0]), [])
    assert moved.dtype == np.float16
    assert moved.tolist() == [65504.0, -65504.0, 2.0]


def test_numbers_beyond_the_models_dtype_are_their_senders_fault():
    state = {"w": torch.ones(3, dtype=torch.float16)}
    clients = {c: {"w": torch.full((3,), 1.5, dtype=torch.float16)} for c in range(3)}
    outcome, new = Guard().process_state_dicts({**clients, 9: {"w": torch.full((3,), 1e5)}}, state)
    assert outcome.suspects.tolist() == [False] * 3 + [True]
    assert "holds numbers beyond float16" in outcome.reasons[3]
    assert new["w"].tolist() == [1.5] * 3
