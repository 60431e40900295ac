"""The checks can fail: for each, a method that breaks it and is told so."""

import math

import numpy as np
import pytest
import torch

from fedguard import Aggregator, Attack, Card, Detector, Policy, Scores, Stage
from fedguard.contracts.attack import Trial
from fedguard.contracts.decision import Decision
from fedguard.testing import (
    aggregators,
    attacks,
    check_aggregator,
    check_attack,
    check_detector,
    check_policy,
    check_stage,
    detectors,
    policies,
    stages,
)


class Good(Detector):
    """s_i = ‖u_i‖.

    Source: nobody, 2026.
    """

    card = Card("good", "length of the update", "Somebody, Some Paper, 2026")

    def score(self, round):
        return round.updates.norms


def norms(round):
    return round.updates.norms.numpy()


def variant(**members):
    """A detector like Good with some members replaced."""
    return type("Broken", (Good,), {"__doc__": Good.__doc__, **members})


def counting(self, round):
    self.count = getattr(self, "count", 0) + 1
    return norms(round) + self.count


def by_position(self, round):
    return norms(round) * np.arange(1, round.n + 1)


def in_place(self, round):
    round.updates.matrix.mul_(2.0)
    return norms(round)


def global_draw(self, round):
    return norms(round) + torch.rand(round.n).numpy()


SHARED = {"total": 0.0}


class Shares(Good):
    """Adds up what all instances have seen."""

    def commit(self, round, scores, decision=None):
        SHARED["total"] += float(norms(round).sum())

    def state_dict(self):
        return {"total": SHARED["total"]}


class Forgets(Good):
    """Scores by how often it saw a client, and does not save that."""

    def __init__(self):
        self.seen = {}

    def score(self, round):
        return norms(round) + np.array([self.seen.get(c, 0) for c in round.client_ids])

    def commit(self, round, scores, decision=None):
        for client in round.client_ids:
            self.seen[client] = self.seen.get(client, 0) + 1


class Expects(Forgets):
    """Knows only the clients of the first round."""

    def score(self, round):
        if self.seen:
            return norms(round) + np.array([self.seen[c] for c in round.client_ids])
        return norms(round)

    def state_dict(self):
        return {"seen": [[c, n] for c, n in self.seen.items()]}

    def load_state_dict(self, state):
        self.seen = {c: n for c, n in state["seen"]}  # noqa: C416


class Undeclared(Good):
    """Uses the validation data without saying so."""

    def score(self, round):
        return norms(round) * len(round.server.validation.labels)


class Trusts(Good):
    """Takes any number of malicious clients.

    Args:
        num_malicious: whatever.
    """

    def __init__(self, num_malicious: int = 0) -> None:
        self.num_malicious = num_malicious


BROKEN_DETECTORS = [
    ("card and docstring", variant(__doc__="s_i = 1."), "no Source"),
    ("card and docstring", variant(card=Card("x_y", "short", "Somebody, Some Paper, 2026")), "summary"),
    ("one number per client", variant(gives_weights=True), "gives weights"),
    (
        "one number per client",
        variant(score=lambda self, round: Scores(norms(round), norms(round) > 1)),
        "a `Scores.reason`",
    ),
    ("order of clients", variant(score=by_position), "depend on the order"),
    ("scoring is pure", variant(score=counting), "scored twice"),
    ("scoring is pure", variant(score=in_place), "changed"),
    ("same seed, same bits", variant(score=global_draw), "differ"),
    ("state round trip", Forgets, "after loading"),
    ("two federations", Shares, "another federation"),
    ("clients come and go", Expects, "KeyError"),
    ("equal updates", variant(score=by_position), "they got"),
    ("degenerate updates", variant(score=lambda self, round: norms(round) / norms(round).max()), "all zero"),
    ("NaN and Inf rows", variant(__call__=lambda self, round: self._checked(round)), "NaN"),
    (
        "small rounds",
        variant(
            score=lambda self, round: 1 / norms(round)[:, None][3:].sum(1) if round.n < 4 else norms(round)
        ),
        "shape",
    ),
    ("absurd num_malicious", Trusts, "was accepted"),
    ("declared needs", Undeclared, "it fails"),
    (
        "declared needs",
        variant(needs=frozenset({"model"}), check=lambda self, n, available: None),
        "a missing model",
    ),
    ("planted attack on top", variant(score=lambda self, round: -norms(round)), "the planted client scores"),
]


@pytest.mark.parametrize(("check", "cls", "message"), BROKEN_DETECTORS)
@pytest.mark.filterwarnings("ignore")
def test_a_broken_detector_is_told_what_and_what_to_do(check, cls, message):
    report = check_detector(cls)
    failed = {result.check: result for result in report.failures}
    assert check in failed, [r.check for r in report.failures]
    assert message in failed[check].message
    assert len(failed[check].advice) > 20
    with pytest.raises(AssertionError, match="breaks its contract"):
        report.raise_for_failures()


def test_a_good_detector_passes_everything_and_costs_little():
    report = check_detector(Good, cost=True)
    assert report.ok, report.failures
    assert [r.check for r in report.results] == [*detectors.CHECKS, "cost"]
    assert "times a Gram matrix" in report.results[-1].message


def test_every_detector_check_but_the_policies_is_shown_to_fail():
    assert {check for check, _, _ in BROKEN_DETECTORS} == detectors.CHECKS.keys() - {"every policy"}


def test_an_exemption_is_reported_with_its_reason():
    cls = variant(
        score=lambda self, round: -norms(round), exempt={"planted attack on top": "it likes long ones"}
    )
    report = check_detector(cls)
    assert report.ok
    assert [r.message for r in report.results if r.status == "exempt"] == ["it likes long ones"]


# --- the other kinds: one broken method per check


class Average(Aggregator):
    """The mean.

    Source: nobody, 2026.
    """

    card = Card("average", "the mean of the updates", "Somebody, Some Paper, 2026")

    def aggregate(self, round, weights):
        share = torch.from_numpy(weights / weights.sum())
        return torch.cat([share @ block for block in round.updates.blocks()]).float()


def aggregator(function, **members):
    return type("Broken", (Average,), {"__doc__": Average.__doc__, "aggregate": function, **members})


def remembering(self, round, weights):
    self.seen = getattr(self, "seen", 0) + 1
    return Average.aggregate(self, round, weights) * self.seen


def longest_so_far(self, round, weights):
    """The same for the same round, until a longer one comes in between."""
    mean = Average.aggregate(self, round, weights)
    self.longest = max(getattr(self, "longest", 0.0), float(mean.norm()))
    return mean * (self.longest / float(mean.norm()))


def without_problems(self, round, weights=None):
    """Leaves out weights of zero, but no broken update."""
    weights = np.ones(round.n) if weights is None else weights
    keep = np.flatnonzero(weights)
    return self.aggregate(round.take(keep), weights[keep])


class Stale(Average):
    """Adds the last aggregate, and does not save it."""

    last = 0.0

    def aggregate(self, round, weights):
        return super().aggregate(round, weights) + self.last

    def commit(self, round, update):
        self.last = update


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        ("card and docstring", aggregator(Average.aggregate, __doc__="No source.")),
        ("d finite numbers", aggregator(lambda self, r, w: Average.aggregate(self, r, w).double())),
        ("order of clients", aggregator(lambda self, r, w: r.updates.matrix[0].clone())),
        (
            "d finite numbers",
            aggregator(lambda self, r, w: Average.aggregate(self, r, w) / (r.updates.d - 1)),
        ),
        ("absence", aggregator(Average.aggregate, __call__=without_problems)),
        ("absence", aggregator(Average.aggregate, __call__=lambda self, r, w=None: r.updates.matrix.mean(0))),
        (
            "nobody left",
            aggregator(Average.aggregate, __call__=lambda self, r, w=None: r.updates.matrix.mean(0)),
        ),
        ("aggregating is pure", aggregator(remembering)),
        ("aggregating is pure", aggregator(lambda self, r, w: r.updates.matrix[0])),
        ("aggregating is pure", aggregator(longest_so_far)),
        ("extreme scales", aggregator(lambda self, r, w: r.updates.matrix.sum(0) / r.n)),
        (
            "equal updates come out as they are",
            aggregator(lambda self, r, w: 2 * Average.aggregate(self, r, w)),
        ),
        ("small rounds", aggregator(lambda self, r, w: r.updates.matrix[1] * 1.0)),
        ("state round trip", Stale),
        (
            "declared needs",
            aggregator(lambda self, r, w: Average.aggregate(self, r, w) + 0 * r.global_params),
        ),
    ],
)
def test_a_broken_aggregator_is_told(check, cls):
    assert check in {r.check for r in check_aggregator(cls).failures}


def test_a_good_aggregator_passes():
    assert check_aggregator(Average).ok
    assert set(aggregators.CHECKS) == {r.check for r in check_aggregator(Average).results}


class Halve(Stage):
    """Halves updates.

    Source: nobody, 2026.
    """

    card = Card("halve", "halve every update before", "Somebody, Some Paper, 2026")

    def before(self, round, weights):
        return round.with_updates(round.updates.matrix / 2), weights


def stage(**members):
    return type("Broken", (Halve,), {"__doc__": Halve.__doc__, **members})


class Counts(Halve):
    """Divides by how many rounds it has seen, and does not save that."""

    def __init__(self):
        self.rounds = 1

    def before(self, round, weights):
        return round.with_updates(round.updates.matrix / self.rounds), weights

    def commit(self, round, update):
        self.rounds += 1


def drawing(self, round, update):
    return update + torch.rand(1)


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        ("card and docstring", stage(__doc__="No source.")),
        ("works in a guard", stage(after=lambda self, r, u: u / 0)),
        ("stages are pure", stage(after=drawing)),
        ("stages are pure", stage(after=lambda self, r, u: u.mul_(2))),
        ("order of clients", stage(after=lambda self, r, u: u + r.updates.matrix[0])),
        ("degenerate updates", stage(after=lambda self, r, u: u / u.norm())),
        ("state round trip", Counts),
    ],
)
def test_a_broken_stage_is_told(check, cls):
    assert check in {r.check for r in check_stage(cls).failures}
    assert check_stage(Halve).ok
    assert check in stages.CHECKS


class Lenient(Policy):
    """Everybody may stay."""

    card = Card("lenient", "everybody contributes in full", "FedGuard")

    def decide(self, case):
        n = len(case.client_ids)
        return Decision(np.ones(n), np.zeros(n, bool), ("fine",) * n)


def policy(function, **members):
    return type("Broken", (Lenient,), {"decide": function, **members})


def banning(self, case):
    n = len(case.client_ids)
    return Decision(np.zeros(n), np.ones(n, bool), ("out",) * n, {0: None})


def harsh(self, case):
    return Decision(np.zeros(5), np.zeros(5, bool), ("out",) * 5)


def first_only(self, case):
    return Decision(np.array([1.0, 0, 0, 0, 0]), np.zeros(5, bool), ("first come",) * 5)


def writing(self, case):
    case.ledger.judge("a", 9, 0.0, suspect=True)
    return Lenient.decide(self, case)


def sorting(self, case):
    for scores in case.scores.values():
        scores.values.sort()
    return Lenient.decide(self, case)


def numbering(self, case):
    return Decision(np.ones(5), np.zeros(5, bool), tuple("abcde"))


class Amnesiac(Lenient):
    """Saves something else than it loads."""

    n = 0

    def commit(self, case, decision):
        self.n += 1

    def state_dict(self):
        return {"n": self.n}

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        ("card and docstring", policy(Lenient.decide, card=Card("lenient", "x", "FedGuard"))),
        (
            "an answer for everybody",
            policy(lambda self, case: Decision(np.ones(2), np.zeros(2, bool), ("a", "b"))),
        ),
        ("deciding is pure", policy(writing)),
        ("deciding is pure", policy(sorting)),
        ("order of clients", policy(numbering)),
        ("nobody suspected", policy(lambda self, case: Decision(np.ones(5), np.ones(5, bool), ("a",) * 5))),
        ("order of clients", policy(first_only)),
        ("nobody suspected", policy(harsh)),
        ("declared bans", policy(banning)),
        ("state round trip", Amnesiac),
    ],
)
def test_a_broken_policy_is_told(check, cls):
    assert check in {r.check for r in check_policy(cls).failures}
    assert check_policy(Lenient).ok, check_policy(Lenient).failures
    assert check in policies.CHECKS


class Push(Attack):
    """Sends −u_i.

    Source: nobody, 2026.
    """

    card = Card("push", "send the update turned round", "Somebody, Some Paper, 2026")
    kind = "model"

    def craft(self, view):
        return -view.own_updates


def attack(**members):
    return type("Broken", (Push,), {"__doc__": Push.__doc__, **members})


def poisoning(function, **members):
    return attack(kind="backdoor", poison_data=function, **members)


class Learns(Push):
    """Pushes harder every round, and does not save how hard."""

    force = 1.0

    def craft(self, view):
        return -self.force * view.own_updates

    def commit(self, view, crafted):
        self.force += 1


#: An attack that may see the benign updates.
KNOWS = {"knowledge": frozenset({"benign_updates"})}


def idle(self, view):
    return view.own_updates + 0 * view.benign_updates.sum()


def curious(self, view):
    """Looks at what it did not declare, if it happens to be there."""
    assert view._known["aggregator"] is None or view.aggregator
    return view.benign_updates.mean(0).repeat(view.num_malicious, 1)


def targeting(trial):
    return attack(goal="targeted", trial=lambda self, samples, classes: trial(samples))


def impatient(self, view):
    self.calls = getattr(self, "calls", 0) + 1
    view.own_updates.neg_()
    return view.own_updates


@pytest.mark.parametrize(
    ("check", "cls"),
    [
        ("card and docstring", attack(__doc__="No source.")),
        ("card and docstring", attack(goal="none")),
        ("what it overrides fits its kind", attack(kind="data")),
        ("what it overrides fits its kind", attack(poison_data=lambda self, s, v: s)),
        ("one update per malicious client", attack(craft=lambda self, v: v.own_updates[:1])),
        (
            "one update per malicious client",
            attack(craft=lambda self, v: v.own_updates[:1].expand(v.num_malicious, -1)),
        ),
        ("one update per malicious client", attack(craft=lambda self, v: v.own_updates / 0)),
        ("crafting is pure", attack(craft=impatient)),
        ("crafting is pure", attack(craft=lambda self, v: v.benign_updates.neg_()[:1], **KNOWS)),
        ("more knowledge is used", attack(craft=idle, **KNOWS)),
        ("what is there is used", attack(craft=lambda self, v: -v.own_updates, **KNOWS)),
        ("what is there is used", attack(craft=curious, **KNOWS)),
        ("same seed, same bits", attack(craft=lambda self, v: v.own_updates + torch.rand(1))),
        ("declared knowledge", attack(craft=lambda self, v: v.own_updates + v.benign_updates.mean(0))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(pixels=s.pixels + 1))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(pixels=s.pixels.double()))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(labels=s.labels.int()))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(pixels=s.pixels.flatten(1)))),
        ("poisoned data", poisoning(lambda self, s, v: type(s)(s.pixels[:9], s.labels[:9]))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(labels=s.labels.clamp_(max=3)))),
        ("trial", targeting(lambda s: Trial(s, s.labels + 1))),
        ("trial", targeting(lambda s: Trial(s, (s.labels + 1).int() % 10))),
        ("trial", targeting(lambda s: Trial(s._replace(labels=s.labels.clamp_(max=3)), 9 - 0 * s.labels))),
        ("poisoned data", poisoning(lambda self, s, v: s._replace(labels=s.labels + 9))),
        ("trial", attack(goal="targeted")),
        ("state round trip", Learns),
        ("small images", attack(check=lambda self, shape, c, n, m: (_ for _ in ()).throw(ValueError("no")))),
    ],
)
def test_a_broken_attack_is_told(check, cls):
    assert check in {r.check for r in check_attack(cls).failures}
    assert check_attack(Push).ok, check_attack(Push).failures
    assert check in attacks.CHECKS


def test_a_class_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"does not inherit from fedguard\.Detector"):
        check_detector(math.floor)
