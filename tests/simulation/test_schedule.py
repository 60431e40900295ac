"""When an attack takes place, who takes part, and who comes back under a new id."""

import numpy as np
import pytest
import torch

from fedguard import Attack, Card, Detector, Scores
from fedguard.core.errors import ConfigError
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.schedule import Schedule

SUITE = """\
data: digits
model: logistic_regression
clients: 6
malicious: 3
rounds: 8
training: {steps: 1, batch_size: 16, lr: 0.1}
"""


class Shout(Attack):
    """Sends ones; notes what it saw."""

    card = Card("shout", "for tests", "FedGuard")
    kind = "model"
    seen: list = []  # noqa: RUF012

    def craft(self, view):
        self.seen.append(view)
        return torch.ones_like(view.own_updates)


class Freeze(Attack):
    """Trains on nothing but the first parameter tensor."""

    card = Card("freeze", "for tests", "FedGuard")
    kind = "model"
    views: list = []  # noqa: RUF012

    def adjust(self, view):
        self.views.append(view)
        return lambda gradients: (gradients[0], *(torch.zeros_like(g) for g in gradients[1:]))


class Loud(Detector):
    """Suspects whoever sends ones."""

    card = Card("loud", "for tests", "FedGuard")

    def score(self, round):
        ones = (round.updates.matrix == 1).all(1).numpy()
        return Scores(ones.astype(float), ones, "ones")


def federation(tmp_path, attack, defense="none", **changes):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE + f"attacks: {{a: {attack}}}\ndefenses: {{d: {defense}}}\n", encoding="utf-8")
    suite, _ = load_suite(path, [f"{k}={v}" for k, v in changes.items()])
    return Federation(suite.cells()[0])


@pytest.mark.parametrize(
    ("schedule", "rounds"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"start": 5}, [5, 6, 7]),
        ({"until": 3}, [0, 1, 2]),
        ({"start": 1, "every": 3}, [1, 4, 7]),
        ({"start": 2, "until": 7, "every": 2}, [2, 4, 6]),
        ({"start": 9}, []),
    ],
)
def test_which_rounds(schedule, rounds):
    assert Schedule(**schedule).rounds(8, seed=0) == rounds


def test_a_random_share_of_the_rounds():
    half = Schedule(start=2, fraction=0.5)
    assert len(half.rounds(10, seed=0)) == 4
    assert set(half.rounds(10, seed=0)) <= set(range(2, 10))
    assert half.rounds(10, seed=0) == half.rounds(10, seed=0)
    assert len({tuple(half.rounds(10, seed)) for seed in range(20)}) > 5


def test_a_growing_set():
    growing = Schedule(start=1, initial=1, grow_every=2)
    assert [growing.members([7, 3, 5], t) for t in range(7)] == [
        [7], [7], [7], [7, 3], [7, 3], [7, 3, 5], [7, 3, 5],
    ]  # fmt: skip
    assert Schedule(initial=2).members([7, 3, 5], 99) == [7, 3]
    assert Schedule().members([7, 3, 5], 0) == [7, 3, 5]


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("{start: 3, until: 3}", "until is 3"),
        ("{grow_every: 2}", "needs `initial`"),
        ("{evry: 2}", "unknown key, did you mean 'every'"),
        ("{fraction: 0}", "greater than 0"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_named_by_line(tmp_path, schedule, problem):
    with pytest.raises(ConfigError, match=rf"suite.yaml:7: attacks\.a\.schedule.*{problem}"):
        federation(tmp_path, f"{{name: lie, schedule: {schedule}}}")


def test_between_attacks_everybody_is_honest(tmp_path):
    spec = f"{{name: '{__name__}:Shout', schedule: {{start: 2, every: 2, initial: 2}}}}"
    federated = federation(tmp_path, spec)
    members = set(federated.malicious[:2])
    clean = federation(tmp_path, "none")
    for record, plain in zip(federated.run(), clean.run(), strict=True):
        attacking = {row.client for row in record.clients if row.attacking}
        assert attacking == (members if record.index in (2, 4, 6) else set())
        assert {row.client for row in record.clients if row.malicious} == set(federated.malicious)
        assert (record.tacc == plain.tacc) == (record.index < 2)


def test_data_poisoning_waits_as_well(tmp_path):
    late, never = (federation(tmp_path, a) for a in ("{name: label_flip, schedule: {start: 3}}", "none"))
    losses = [[record.loss for record in f.run()] for f in (late, never)]
    assert losses[0][:3] == losses[1][:3]
    assert losses[0][3] != losses[1][3]


def test_a_banned_attacker_comes_back_under_a_new_id(tmp_path):
    attack = f"{{name: '{__name__}:Shout', schedule: {{start: 1, rejoin_after: 3}}}}"
    federated = federation(tmp_path, attack, f"{{detector: '{__name__}:Loud', policy: ban}}")
    bad = federated.malicious[0]
    records = federated.run()
    rows = [record.clients[bad] for record in records]
    assert [row.id for row in rows] == [str(bad)] * 4 + [f"{bad}.1"] * 3 + [f"{bad}.2"]
    assert [row.participated for row in rows] == [True, True, False, False, True, False, False, True]
    assert [row.suspect for row in rows] == [False, True, False, False, True, False, False, True]
    assert federated.ever_banned(bad)
    honest = next(c for c in range(6) if c not in federated.malicious)
    assert {record.clients[honest].id for record in records} == {str(honest)}
    assert not federated.ever_banned(honest)


def test_a_view_holds_the_last_two_global_models(tmp_path):
    Shout.seen.clear()
    federated = federation(tmp_path, f"{{name: '{__name__}:Shout'}}", rounds=3)
    federated.run()
    first, second, third = Shout.seen
    assert torch.equal(first.previous_params, first.global_params)
    assert torch.equal(second.previous_params, first.global_params)
    assert torch.equal(third.previous_params, second.global_params)
    assert not torch.equal(third.previous_params, third.global_params)


def test_an_attack_may_adjust_its_own_clients_gradients_only(tmp_path):
    Freeze.views.clear()
    federated = federation(tmp_path, f"{{name: '{__name__}:Freeze'}}", rounds=2)
    updates = federated._train(list(range(6)), set(federated.malicious), 0).updates
    weights = updates[:, :-10], updates[:, -10:]  # logistic regression: 64 x 10 weights, 10 biases
    moved = weights[1].abs().sum(1).numpy() > 0
    assert (weights[0].abs().sum(1) > 0).all()
    np.testing.assert_array_equal(~moved, [c in federated.malicious for c in range(6)])
    view = Freeze.views[0]
    assert view.shapes == ((10, 64), (10,))
    assert torch.equal(view.global_params, federated.params)
