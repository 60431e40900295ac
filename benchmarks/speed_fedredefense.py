"""FedREDefense: time to the verdicts of a round, the published algorithm as a plain loop against ours.

    FEDGUARD_DATA=DATA python benchmarks/speed_fedredefense.py [--quick]

Both sides get identical updates of the paper's federation (see ``fedredefense_rounds.py``; they are made once and
kept in ``.bench``). The plain loop is Algorithm 2 with autograd, client after client, all cores left to torch; ours
runs on as many worker processes as there are cores. In full the loop takes most of an hour for 100 clients, so a
first round is run in full for 7 clients (5 honest, 2 malicious), and for 100 clients its seconds are its iterations,
which our preset "paper" counts, times the seconds of an iteration, measured in turn with ours. Such lines say so.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from bench import Row, compare, limited, seconds, show
from fedredefense_rounds import Scene, scene, with_map
from torch import Tensor, nn

from fedguard import Detector, Round, make_detector
from fedguard.simulation.pool import Workers

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


def agree(ours: object, theirs: list[Found]) -> str:
    """How many verdicts are the same."""
    suspects = ours.suspects.tolist()  # type: ignore[attr-defined]
    same = sum(a == (b.error > 0.6) for a, b in zip(suspects, theirs, strict=True))
    return f"{same} of {len(theirs)} verdicts"


def detector(preset: str, **params: object) -> Detector:
    caps = {"first_iterations": FIRST_CAP, "later_iterations": LATER_CAP} if preset == "paper" else {}
    return make_detector("fedredefense", preset=preset, **{**caps, **params})  # type: ignore[arg-type]


def one_iteration(round_: Round, repeats: int) -> list[Row]:
    """An outer iteration of one client: two passes of the loop less one, on one thread and on all."""
    alone = round_.take([0])
    plain_ = lambda: plain_round(alone, {}, 4)  # noqa: E731
    rows = []
    for inner, note in (("closed", "same method, closed form"), ("func", "same method, torch.func")):
        method = detector("paper", first_iterations=4, inner_loop=inner)
        same = lambda a, b: f"error differs by {abs(a.values[0] - b[0].error):.1g}"  # noqa: E731
        work = f"FedREDefense, 4 outer iterations, {inner}"
        rows.append(compare(work, "plain loop", None, lambda: method(alone), plain_, same, repeats, 1, note))  # noqa: B023
    return rows


def in_full(round_: Round, some: list[int], cap: int, pool: Workers) -> Row:
    """A first round of a few clients, nothing extrapolated."""
    few = round_.take(some)
    fast, mapped = detector("fast"), with_map(few, pool.map)
    work = f"FedREDefense fast, first round of {len(some)} clients, cap {cap}"
    return compare(
        work, "plain loop, in full", 30, lambda: fast(mapped), lambda: plain_round(few, {}, cap), agree, 1
    )


def extrapolated(
    work: str, target: float, round_: Round, fast: Detector, paper: Detector, repeats: int, pool: Workers
) -> Row:
    """Ours in full; the plain loop's seconds from its number of iterations and the time of one."""
    mapped = with_map(round_, pool.map)
    slow = paper(mapped)
    iterations = slow.info["aoi"] * round_.n
    alone = round_.take([0])
    fast(mapped)
    pairs = []
    with limited(os.cpu_count() or 1):
        plain_round(alone, {}, 9)
        for _ in range(repeats):
            ours = seconds(lambda: fast(mapped))
            pairs.append((ours, seconds(lambda: plain_round(alone, {}, 9)) / 10 * iterations))
    same = int((slow.suspects == fast(mapped).suspects).sum())
    return Row(
        work,
        "plain loop, extrapolated",
        target,
        statistics.median(b / a for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        threads=os.cpu_count() or 1,
        repeats=repeats,
        agreement=f"{same} of {round_.n} verdicts",
        note=f"plain loop: {iterations:.0f} iterations, AOI {slow.info['aoi']:.1f}; "
        f"ours: AOI {fast(mapped).info['aoi']:.1f}",
    )


def with_history(scene_: Scene, method: Detector, clients: list[int], rounds: int, pool: Workers) -> Round:
    """Let a detector see the first rounds of a scene; the round after them."""
    for round_ in scene_.history[:rounds]:
        seen = with_map(round_.take(clients), pool.map)
        method.commit(seen, method(seen))
    return [*scene_.history, scene_.honest][rounds].take(clients)


def later(scene_: Scene, clients: list[int], rounds: int, repeats: int, pool: Workers) -> Row:
    """A later round of those who were not expelled in the first, both sides in full with their own knowledge."""
    fast, paper = detector("fast"), detector("paper")
    with_history(scene_, fast, clients, rounds, pool)
    round_ = with_history(scene_, paper, clients, rounds, pool)
    kept = {c: (k["images"], k["labels"], k["inner_lr"]) for c, k in paper.state_dict()["knowledge"]}
    mapped = with_map(round_, pool.map)
    work = f"FedREDefense fast, round {rounds} of {len(clients)} clients, kept knowledge"
    return compare(
        work,
        "plain loop, in full",
        5,
        lambda: fast(mapped),
        lambda: plain_round(round_, kept, LATER_CAP),
        agree,
        repeats,
    )


@contextmanager
def workers() -> Iterator[Workers]:
    with Workers(os.cpu_count() or 1) as pool:
        pool.map(abs, range(4 * pool.count))  # they are there before anything is measured
        yield pool


def rows(quick: bool) -> list[Row]:
    with workers() as pool:
        first = scene("fashion_mnist", 0, 0, FOLDER)
        bad = first.malicious.tolist()
        good = [i for i in range(100) if i not in bad]
        attacked = first.attacked(ATTACK)
        table = one_iteration(attacked, 3 if quick else 9)
        table.append(
            in_full(
                attacked,
                good[:1] + bad[:1] if quick else good[:5] + bad[:2],
                40 if quick else FIRST_CAP,
                pool,
            )
        )
        if quick:
            return table
        work = f"FedREDefense fast, first round of 100 clients, {ATTACK}"
        table.append(extrapolated(work, 30, attacked, detector("fast"), detector("paper"), 5, pool))
        warm = scene("fashion_mnist", 0, 10, FOLDER, keep=10)
        table.append(later(warm, good, 3, 5, pool))
    return table


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
