"""Mimic against the formula for its direction: numpy's SVD at first, then Oja's rule by hand."""

import numpy as np
import pytest
import torch

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack
from fedguard.core.state import pack, unpack

M, D = 3, 12


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def benign_of(index, k=7):
    """A round: one client pulls in one direction, in every round; another one is merely long."""
    updates = random(k, D, seed=index)
    updates[4] += 6 * random(D, seed=99)
    updates[1] *= 2
    return updates


def make_view(benign, index=0):
    return UpdateView(
        index=index,
        num_clients=M + len(benign),
        global_params=torch.zeros(D),
        initial_params=torch.zeros(D),
        own_updates=random(M, D, seed=1000 + index),
        generator=torch.Generator().manual_seed(0),
        benign_updates=benign,
    )


def play(attack, rounds):
    """Positions that are copied in a sequence of rounds."""
    return [step(attack, benign, index) for index, benign in enumerate(rounds)]


def step(attack, benign, index=0):
    view = make_view(benign, index)
    sent = attack.craft(view)
    assert torch.equal(sent, attack.craft(view))  # nothing is remembered before commit
    attack.commit(view, sent)
    assert torch.equal(sent, sent[:1].expand(M, -1))
    copied = [i for i, update in enumerate(benign) if torch.equal(update, sent[0])]
    assert len(copied) == 1, "an exact copy of one benign update"
    return copied[0]


def scatter(benign):
    u = benign.double().numpy()
    centerd = u - u.mean(0)
    return centerd.T @ centerd


def learn(rounds):
    """z after each round."""
    z = np.linalg.eigh(scatter(rounds[0]))[1][:, -1]
    path = [z]
    for t, benign in enumerate(rounds[1:], 1):
        pull = scatter(benign) @ z
        z = t / (t + 1) * z + pull / np.linalg.norm(pull) / (t + 1)
        z = z / np.linalg.norm(z)
        path.append(z)
    return path


def farthest(benign, z):
    return int(np.abs(benign.double().numpy() @ z).argmax())


def mixed(index):
    """Rounds without a client that stands out: the choice hangs on z."""
    return random(9, D, seed=50 + index) + 0.5 * random(1, D, seed=77)


@pytest.mark.parametrize("seed", range(8))
def test_the_first_round_copies_the_extreme_of_the_leading_direction(seed):
    benign = mixed(seed)
    assert step(make_attack("mimic"), benign) == farthest(benign, learn([benign])[0])


def test_the_direction_is_that_of_the_spread_not_of_the_longest_update():
    """Four clients near (10, 0), spread in the second coordinate: z is all but (0, 1)."""
    benign = torch.tensor([[10.1, 0.1], [10.0, 1.0], [10.0, -1.2], [10.0, 0.1]])
    benign = torch.cat([benign, torch.zeros(4, D - 2)], 1)
    assert step(make_attack("mimic"), benign) == 2


@pytest.mark.parametrize("seed", range(4))
def test_oja_turns_the_direction_during_the_warm_up(seed):
    rounds = [mixed(10 * seed + t) for t in range(5)]
    attack = make_attack("mimic", warmup=5)
    expected = [farthest(b, z) for b, z in zip(rounds, learn(rounds), strict=True)]
    assert play(attack, rounds) == expected
    z = attack.state_dict()["direction"].double().numpy()
    assert abs(z @ learn(rounds)[-1]) == pytest.approx(1, abs=1e-6)


def test_after_the_warm_up_the_same_client_is_copied():
    rounds = [mixed(t) for t in range(8)]
    for warmup in (1, 3):
        copied = play(make_attack("mimic", warmup=warmup), rounds)
        z = learn(rounds[:warmup])[-1]
        assert copied[warmup - 1 :] == [farthest(rounds[warmup - 1], z)] * (9 - warmup)
        again = play(make_attack("mimic", warmup=warmup, target="each_round"), rounds)
        assert again[warmup:] == [farthest(b, z) for b in rounds[warmup:]]
        assert len(set(again[warmup:])) > 1


def test_another_number_of_clients_means_another_choice():
    """Position 8 of nine clients does not exist among five."""
    rounds = [mixed(0), mixed(1)[:5], mixed(2)[:5]]
    z = learn(rounds[:1])[0]
    copied = play(make_attack("mimic"), rounds)
    assert copied == [farthest(rounds[0], z), farthest(rounds[1], z), farthest(rounds[1], z)]


def test_a_client_that_stands_out_is_found():
    assert play(make_attack("mimic"), [benign_of(t) for t in range(4)]) == [4, 4, 4, 4]


def test_state_survives_packing():
    rounds = [mixed(t) for t in range(6)]
    whole = make_attack("mimic", warmup=4)
    expected = play(whole, rounds)
    first, second = make_attack("mimic", warmup=4), make_attack("mimic", warmup=4)
    start = play(first, rounds[:2])
    second.load_state_dict(unpack(pack(first.state_dict())))
    rest = [step(second, benign, index) for index, benign in enumerate(rounds[2:], 2)]
    assert start + rest == expected
    assert torch.equal(second.state_dict()["direction"], whole.state_dict()["direction"])
    second.load_state_dict({})
    assert second.state_dict() == {}


@pytest.mark.parametrize(
    "benign",
    [random(1, D).repeat(4, 1), torch.zeros(4, D), random(1, D), torch.full((4, D), 3e38)],
    ids=["identical", "zeros", "one", "huge"],
)
def test_no_direction_is_no_problem(benign):
    attack = make_attack("mimic", warmup=2)
    for index in range(3):
        view = make_view(benign, index)
        sent = attack.craft(view)
        attack.commit(view, sent)
        assert torch.equal(sent, benign[:1].expand(M, -1))


def test_a_client_that_has_diverged_teaches_nothing():
    benign = mixed(0)
    benign[2] = float("nan")
    attack = make_attack("mimic", warmup=2)
    for index in range(3):
        assert step(attack, benign, index) != 2
    assert torch.isfinite(attack.state_dict()["direction"]).all()
