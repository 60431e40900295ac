"""FedREDefense: time to the verdicts of a round, the published algorithm as a plain loop against ours.

    FEDGUARD_DATA=DATA python benchmarks/speed_fedredefense.py [--quick] [--one-thread]

Both sides get identical updates of the paper's federation (see ``fedredefense_rounds.py``; they are made
once and kept in ``.bench``). The plain loop is Algorithm 2 with autograd, client after client, all cores left
to torch; ours runs on as many worker processes as there are cores. With ``--one-thread`` both have one thread
and processor seconds count, which other work on the machine disturbs less.

A first round of 100 clients takes the loop much of an hour. Its seconds are its iterations, counted on some
clients of each kind by our preset "paper" (which does the same iterations), times the seconds of one,
measured in turn with ours; such lines say "extrapolated". For 7 clients and a cap of 200 it is run in full.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bench import Row, limited, show
from fedredefense_rounds import Scene, scene, with_map
from torch import Tensor, nn

from fedguard import Detector, Round, Scores, make_detector
from fedguard.simulation.federation import Federation
from fedguard.simulation.pool import Workers
from fedguard.simulation.settings import AttackSpec, Cell, Defense, Spec, TrainingSettings

FOLDER = Path(__file__).parent.parent / ".bench"
#: The authors' scripts' caps for Fashion-MNIST; Table 7 of the paper has 5000 and 5000.
FIRST_CAP, LATER_CAP = 800, 2000
ATTACK = "min_max"


class Found(NamedTuple):
    """What the plain loop returns for a client."""

    error: float
    iterations: int
    knowledge: tuple[Tensor, Tensor, Tensor]


def train(model: nn.Module, start: list[Tensor], images: Tensor, labels: Tensor, lr: Tensor) -> list[Tensor]:
    """Five steps of gradient descent on the knowledge, on the graph."""
    names, weights = [name for name, _ in model.named_parameters()], start
    for _ in range(5):
        logits = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (images,))
        loss = -(torch.softmax(labels, 1) * torch.log_softmax(logits, 1)).mean()
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        weights = [w - lr * g for w, g in zip(weights, gradients, strict=True)]
    return weights


def plain(model: nn.Module, start: Tensor, update: Tensor, knowledge: tuple[Tensor, ...], cap: int) -> Found:
    """Algorithm 2 with dynamic stopping, as published: γ = 0.6, Table 7's rates, SGD with momentum 0.5."""
    sizes = [p.numel() for p in model.parameters()]
    shaped = [part.view(p.shape) for part, p in zip(start.split(sizes), model.parameters(), strict=True)]
    first = [part.clone().requires_grad_() for part in shaped]
    images, labels, lr = (part.clone().requires_grad_() for part in knowledge)
    optimizer = torch.optim.SGD(
        [
            {"params": [images], "lr": 0.1},
            {"params": [labels], "lr": 0.05},
            {"params": [lr], "lr": 5e-5},
        ],
        momentum=0.5,
    )
    step, error = 0, math.inf
    for step in range(cap + 1):
        end = torch.cat([w.flatten() for w in train(model, first, images, labels, lr)])
        loss = (end - start - update).square().sum() / update.square().sum()
        error = float(loss.detach())
        if step == cap or error < 0.6:
            break
        optimizer.zero_grad()
        loss.backward(inputs=[images, labels, lr])
        optimizer.step()
    return Found(error, min(step + 1, cap), (images.detach(), labels.detach(), lr.detach()))


def noise(round_: Round, client: object) -> tuple[Tensor, Tensor, Tensor]:
    """Where our detector starts too, so that both sides do the same iterations."""
    assert round_.server is not None
    draw = round_.server.generator("fedredefense", client)
    return torch.randn(10, 1, 28, 28, generator=draw), torch.zeros(10, 10), torch.tensor(0.1)


def plain_round(round_: Round, kept: dict[object, tuple[Tensor, ...]], cap: int) -> list[Found]:
    """One client after the other."""
    assert round_.server is not None
    assert round_.server.model is not None
    assert round_.global_params is not None
    return [
        plain(
            round_.server.model, round_.global_params, update, kept.get(client) or noise(round_, client), cap
        )
        for client, update in zip(round_.client_ids, round_.updates.matrix, strict=True)
    ]


def agree(ours: Scores, theirs: list[Found]) -> str:
    """How many verdicts are the same."""
    suspects = ours.suspects.tolist()
    same = sum(a == (b.error > 0.6) for a, b in zip(suspects, theirs, strict=True))
    return f"{same} of {len(theirs)} verdicts"


def detector(preset: str, **params: object) -> Detector:
    own: dict[str, object] = {}
    if preset == "paper":  # momentum and noise as in ``plain`` and ``noise``
        own = {"first_iterations": FIRST_CAP, "later_iterations": LATER_CAP}
        own |= {"momentum": 0.5, "init": "gaussian"}
    return make_detector("fedredefense", preset=preset, **{**own, **params})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Sides:
    """How both sides are run: on all cores by the clock, or on one thread in processor seconds."""

    pool: Workers
    one_thread: bool

    def ours(self, round_: Round) -> Round:
        """The round with the map that our side may use."""
        return round_ if self.one_thread else with_map(round_, self.pool.map)

    def row(
        self,
        work: str,
        against: str,
        target: float | None,
        ours: Callable[[], Any],
        theirs: Callable[[], Any],
        repeats: int,
        times: float = 1,
        agreement: str = "",
        note: str = "",
    ) -> Row:
        """Both sides in turn; the other side's seconds count ``times`` as much."""
        threads = 1 if self.one_thread else os.cpu_count() or 1
        clock = time.process_time if self.one_thread else time.perf_counter
        pairs = []
        with limited(threads):
            ours()
            for _ in range(repeats):
                begin = clock()
                ours()
                middle = clock()
                theirs()
                pairs.append((middle - begin, (clock() - middle) * times))
        ratio, quick, slow = (
            statistics.median(column) for column in zip(*((b / a, a, b) for a, b in pairs), strict=True)
        )
        return Row(
            work,
            against,
            target,
            ratio,
            quick,
            slow,
            threads=threads,
            repeats=repeats,
            agreement=agreement,
            note=note,
        )


def one_iteration(round_: Round, sides: Sides, repeats: int) -> list[Row]:
    """Four outer iterations of one client, and the pass that ends them, on one thread."""
    alone, single = round_.take([0]), dataclasses.replace(sides, one_thread=True)
    error = plain_round(alone, {}, 4)[0].error
    rows = []
    for what, method in (
        ("paper, closed form", detector("paper", first_iterations=4)),
        ("paper, torch.func", detector("paper", first_iterations=4, inner_loop="func")),
        ("fast, not stopped", detector("fast", first_iterations=4, schedule="continuous")),
    ):
        difference = abs(method(alone).values[0] - error)
        same = f"errors differ by {difference:.0e}" if what.startswith("paper") else ""
        work = f"FedREDefense, 4 outer iterations of a client, {what}"
        call = functools.partial(method, alone)
        rows.append(
            single.row(
                work, "plain loop", None, call, lambda: plain_round(alone, {}, 4), repeats, agreement=same
            )
        )
    return rows


def in_full(round_: Round, some: list[int], cap: int, sides: Sides) -> Row:
    """A first round of a few clients, nothing extrapolated."""
    few, found = round_.take(some), []
    fast, mapped = detector("fast"), sides.ours(few)
    work = f"FedREDefense fast, first round of {len(some)} clients, the loop's cap {cap}"
    slow = lambda: found.append(plain_round(few, {}, cap))  # noqa: E731
    row = sides.row(work, "plain loop, in full", 30, lambda: fast(mapped), slow, 1)
    return dataclasses.replace(row, agreement=agree(fast(mapped), found[-1]))


def extrapolated(round_: Round, good: list[int], bad: list[int], repeats: int, sides: Sides) -> Row:
    """Ours in full; the plain loop's seconds from its number of iterations and the time of one.

    The iterations are counted on some clients of each kind, which stand for 72 and 28.
    """
    fast, paper, mapped = detector("fast"), detector("paper"), sides.ours(round_)
    kinds = [paper(with_map(round_, sides.pool.map).take(some)) for some in (good, bad)]
    aoi = 0.72 * kinds[0].info["aoi"] + 0.28 * kinds[1].info["aoi"]
    alone, ours = round_.take([0]), fast(mapped)
    slow = np.concatenate([kind.suspects for kind in kinds])
    same = int((slow == ours.suspects[good + bad]).sum())
    return sides.row(
        f"FedREDefense fast, first round of {round_.n} clients, {ATTACK}",
        "plain loop, extrapolated",
        30,
        lambda: fast(mapped),
        lambda: plain_round(alone, {}, 9),
        repeats,
        times=aoi * round_.n / 10,
        agreement=f"{same} of {len(slow)} verdicts",
        note=f"plain loop: AOI {aoi:.1f}, of honest clients {kinds[0].info['aoi']:.1f}, of malicious ones "
        f"{kinds[1].info['aoi']:.1f} (cap {FIRST_CAP}), counted on {len(good)} and {len(bad)}; ours: AOI "
        f"{ours.info['aoi']:.1f}",
    )


def with_history(scene_: Scene, method: Detector, clients: list[int], rounds: int, pool: Workers) -> Round:
    """Let a detector see the first rounds of a scene; the round after them."""
    for round_ in scene_.history[:rounds]:
        seen = with_map(round_.take(clients), pool.map)
        method.commit(seen, method(seen))
    return [*scene_.history, scene_.honest][rounds].take(clients)


def later(scene_: Scene, clients: list[int], rounds: int, repeats: int, sides: Sides) -> Row:
    """A later round of those who were not expelled, both sides in full with their own knowledge."""
    fast, paper = detector("fast"), detector("paper")
    with_history(scene_, fast, clients, rounds, sides.pool)
    round_ = with_history(scene_, paper, clients, rounds, sides.pool)
    kept = {c: (k["images"], k["labels"], k["inner_lr"]) for c, k in paper.state_dict()["knowledge"]}
    mapped = sides.ours(round_)
    work = f"FedREDefense fast, round {rounds} of {len(clients)} clients, kept knowledge"
    found = plain_round(round_, kept, LATER_CAP)
    ours = fast(mapped)
    return sides.row(
        work,
        "plain loop, in full",
        5,
        lambda: fast(mapped),
        lambda: plain_round(round_, kept, LATER_CAP),
        repeats,
        agreement=agree(ours, found),
        note=f"plain loop: AOI {np.mean([f.iterations for f in found]):.1f}; "
        f"ours: AOI {ours.info['aoi']:.1f}",
    )


def at_once(repeats: int, sides: Sides) -> Row:
    """The clients of a perceptron at once or one after the other, on one thread: quickstart's federation."""
    cell = Cell(
        data=Spec(name="digits"),
        partition=Spec(name="dirichlet", beta=1.0),
        model=Spec(name="mlp", hidden=[32]),
        clients=20,
        malicious=6,
        rounds=1,
        training=TrainingSettings(epochs=2, batch_size=16, lr=0.1),
        attack_label="min_max",
        attack=AttackSpec(name="min_max"),
        defense_label="none",
        defense=Defense(),
        seed=0,
    )
    round_ = Federation(cell).advance(0).round
    assert round_ is not None
    rates = {"inner_lr": 5.0, "lr_images": 1.0, "lr_labels": 0.5}
    method = detector("paper", first_iterations=300, **rates)
    alone = lambda: [method(round_.take([i])).values[0] for i in range(round_.n)]  # noqa: E731
    return dataclasses.replace(sides, one_thread=True).row(
        "FedREDefense, 20 clients of a perceptron at once",
        "one after the other",
        None,
        lambda: method(round_),
        alone,
        repeats,
        agreement="equal" if method(round_).values.tolist() == alone() else "differ",
    )


@contextmanager
def workers() -> Iterator[Workers]:
    with Workers(os.cpu_count() or 1) as pool:
        pool.map(abs, range(4 * pool.count))  # they are there before anything is measured
        yield pool


def rows(quick: bool, one_thread: bool = False) -> list[Row]:
    with workers() as pool:
        sides = Sides(pool, one_thread)
        together = at_once(1 if quick else 5, sides)
        first = scene("fashion_mnist", 0, 0, FOLDER)
        bad = first.malicious.tolist()
        good = [i for i in range(100) if i not in bad]
        attacked = first.attacked(ATTACK)
        table = [together, *one_iteration(attacked, sides, 3 if quick else 9)]
        if quick:
            return [*table, in_full(attacked, good[:1] + bad[:1], 40, sides)]
        table.append(in_full(attacked, good[:5] + bad[:2], 200, sides))
        table.append(extrapolated(attacked, good[:18], bad[:2], 5, sides))
        warm = scene("fashion_mnist", 0, 10, FOLDER, keep=10)
        table.append(later(warm, good[:18], 3, 5, sides))
    return table


if __name__ == "__main__":
    show(rows("--quick" in sys.argv, "--one-thread" in sys.argv))
