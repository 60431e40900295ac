"""What detectors and the ledger keep by client id is bounded, whoever turns up."""

import numpy as np
import pytest
import torch

from fedguard import Guard, Ledger, Round, make_detector, make_policy
from fedguard.contracts.registry import detectors
from fedguard.core import history
from fedguard.core.history import History
from fedguard.core.state import pack
from fedguard.testing.federation import federation


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(history, "MAX_CLIENTS", 4)


def test_whoever_was_not_seen_for_longest_is_forgotten():
    kept = History([("a", 1), ("b", 2), ("c", 3), ("d", 4)])
    kept.remember({"b": 20, "e": 5}, seen=["a"])
    assert list(kept.items()) == [("d", 4), ("a", 1), ("b", 20), ("e", 5)]
    kept.remember({"f": 6}, seen=["nobody"])
    assert list(kept) == ["a", "b", "e", "f"]


def test_the_clients_of_the_round_at_hand_are_kept_however_many_they_are():
    kept = History([("old", 0)])
    kept.remember({i: i for i in range(7)})
    assert list(kept) == list(range(7))
    kept.remember({6: 6})
    assert list(kept) == [3, 4, 5, 6]


@pytest.fixture
def small(monkeypatch):
    """Room for a hundred floats, and for many clients."""
    monkeypatch.setattr(history, "MAX_BYTES", 400)
    monkeypatch.setattr(history, "MAX_CLIENTS", 1000)


def test_bytes_are_bounded_too(small):
    kept = History()
    for index in range(9):
        kept.remember({f"{index} {k}": torch.ones(10) for k in range(2)})
    assert len(kept) == 10, "400 bytes hold ten vectors of ten floats"
    assert list(kept)[-1] == "8 1"
    kept.remember({"long": torch.ones(95)}, seen=["8 0"])
    assert list(kept) == ["8 0", "long"], "whoever was seen is of the round at hand"
    kept.remember({"short": torch.ones(1)})
    assert list(kept) == ["long", "short"]


def test_the_round_at_hand_may_take_more_bytes(small):
    kept = History([("old", torch.ones(1))])
    kept.remember({k: torch.ones(100) for k in range(5)})
    assert list(kept) == list(range(5))
    kept.remember({4: torch.ones(100)})
    assert list(kept) == [4]


def test_what_takes_the_place_of_a_value_is_counted_once(small):
    kept = History()
    for _ in range(50):
        kept.remember({"a": torch.ones(40), "b": torch.ones(40)})
    assert len(kept) == 2
    assert kept._bytes == 320
    restored = History(kept.items())
    restored.remember({"c": torch.ones(40)})
    assert list(restored) == ["b", "c"]


@pytest.mark.parametrize("name", ["foolsgold", "cross_round", "recommended", "afa", "fldetector"])
def test_no_detector_takes_more_bytes_than_that(name, monkeypatch):
    """Sybils with a large model: what is kept of them is bounded by bytes, long before their number is."""
    monkeypatch.setattr(history, "MAX_CLIENTS", 10**6)
    monkeypatch.setattr(history, "MAX_BYTES", 20_000)
    detector = detectors.get(name)()
    rng = np.random.default_rng(0)
    sizes = []
    for index in range(40):
        updates = rng.normal(size=(5, 200)).astype("float32")
        part = Round(updates, [f"{index} {k}" for k in range(5)], index=index, global_params=np.ones(200))
        detector.commit(part, detector(part))
        sizes.append(len(pack(detector.state_dict())))
    assert max(sizes) < 60_000
    assert sizes[-1] < 1.1 * sizes[20] + 200


def test_ids_that_read_the_same_are_the_same_client():
    kept = History([(7, "seven")])
    assert kept["7"] == "seven"
    kept.remember({"7": "again"})
    assert list(kept.items()) == [(7, "again")]


def test_renaming_7_to_text_sheds_no_history():
    x = np.random.default_rng(0).normal(size=(5, 20))
    x[4] = x[3] + 0.01 * x[0]
    detector = make_detector("foolsgold")
    first = Round(x, [0, 1, 2, 3, 4])
    detector.commit(first, detector(first))
    fresh = np.random.default_rng(1).normal(size=(5, 20))
    said = [detector(Round(fresh, ids, index=1)).values for ids in ([0, 1, 2, 3, 4], list("01234"))]
    assert said[0].tolist() == said[1].tolist()
    assert said[0].tolist() != make_detector("foolsgold")(fresh).values.tolist()


@pytest.mark.parametrize("name", detectors.names())
def test_no_detector_grows_with_the_ids_that_turn_up(name):
    """Ever new ids: the state after 20 rounds is as large as after 12, up to the text of longer numbers."""
    cls = detectors.get(name)
    detector, base = cls(**cls.check_with), federation()[0]
    sizes = []
    for index in range(20):
        ids = tuple(f"{index:03d} {k:03d}" for k in range(4))
        part = Round(
            base.updates.matrix[:4] * (1 + index / 100),
            ids,
            index=index,
            global_params=base.global_params * (1 + index / 10),
            server=base.server,
        )
        detector.commit(part, detector(part))
        sizes.append(len(pack(detector.state_dict())))
    assert sizes[-1] < 1.02 * sizes[12] + 200


def test_the_ledger_forgets_sybils_before_faithful_clients_and_never_a_ban():
    ledger = Ledger(max_clients=6)
    ledger.ban("banned", 0, None, "why")
    ledger.judge("once", 0, 1.0, suspect=True)
    ledger.ban("once", 0, 1, "for a round")
    for index in range(20):
        ledger.judge("faithful", index, 0.0, suspect=False)
        ledger.judge(f"sybil {index}", index, 0.0, suspect=False)
    assert ledger.is_banned("banned", 10**6)
    assert ledger.ever_banned("once")
    assert ledger["faithful"].rounds == 20
    assert len(ledger.clients()) <= 6


def test_a_guard_under_sybils_stays_as_large_as_it_is():
    guard = Guard(
        [make_detector("foolsgold"), make_detector("afa")],
        make_policy("exclude"),
        ledger=Ledger(max_clients=12),
    )
    sizes = []
    for index in range(40):
        ids = ["honest", *(f"sybil {index:03d} {k}" for k in range(3))]
        guard.process(Round(np.random.default_rng(index).normal(size=(4, 6)), ids, index=index))
        sizes.append(len(pack(guard.state_dict())))
    assert sizes[-1] < 1.1 * sizes[10]
    assert guard.ledger["honest"].rounds == 40


@pytest.mark.parametrize(
    "detector", [name for name in detectors.names() if not detectors.get(name).needs - {"global_params"}]
)
def test_a_model_that_changes_its_size_ends_no_federation(detector):
    """The architecture is the server's choice: what was remembered of another one does not fit."""
    rng = np.random.default_rng(0)
    guard = Guard(make_detector(detector, **detectors.get(detector).check_with), make_policy("exclude"))
    for index, d in enumerate([5, 5, 5, 6, 5, 5, 6, 6, 6, 6]):
        updates = rng.normal(size=(8, d)).astype("float32")
        round = Round(updates, list("abcdefgh"), index=index, global_params=rng.normal(size=d))
        outcome = guard.process(round)
        assert outcome.aggregate.shape == (d,)
        assert outcome.aggregate.isfinite().all()
