"""Run guards on hostile rounds: every detector × policy × aggregator, checking invariants.

    python -m fedguard.testing.fuzz --rounds 100000 --cases 10000 --out fuzz.md

A federation is one guard and a few consecutive rounds. Its number determines everything, so ``--federation``
reproduces a failure. Untrusted replies and files are mutated case by case (see ``fedguard.testing.fuzzing``);
``--kind`` and ``--seed`` reproduce a case.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..contracts.outcome import Outcome
from ..contracts.registry import REGISTRIES, make_policy
from ..contracts.round import Round
from ..core.errors import FedGuardError, TooFewClientsError
from ..core.files import write_file
from ..core.ids import ClientId
from ..core.state import pack, unpack
from ..core.threads import single_thread
from ..guard import Guard
from .core import require, variants
from .fuzzing import KINDS as INPUTS
from .hostile_rounds import CHEAP, CLIENTS_MAY_SEND, KINDS, Draft, draft
from .soak import Growth, keeping, soak
from .soak import table as soak_table

#: Rounds per federation.
ROUNDS = 6
#: Rules that flag no client or all, and one that depends on the scores.
RULES: dict[str, dict[str, Any]] = {
    "mad": {"name": "mad"},
    "everybody": {"name": "threshold", "value": -1e300},
}
POLICIES: dict[str, dict[str, Any]] = {
    "observe": {},
    "exclude": {},
    "reweight": {},
    "ban": {"strikes": 2, "window": 4, "duration": 2, "parole": 1},
    "gate": {},
    "evidence": {"alpha": 0.05, "rounds": 1},
}


@dataclass
class Tally:
    """The results of fuzzing rounds.

    Attributes:
        rounds: number of rounds.
        federations: number of federations.
        kinds: rounds by kind of hostility (a round may have two).
        refusals: refused rounds by type of error.
        moved: rounds that were judged again with their clients in another order.
        failures: violated invariants, each with the federation's number.
    """

    rounds: int = 0
    federations: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the counts of another part."""
        self.rounds += other.rounds
        self.federations += other.federations
        self.kinds += other.kinds
        self.refusals += other.refusals
        self.moved += other.moved
        self.failures += other.failures


@cache
def combinations() -> tuple[tuple[str, str, str], ...]:
    """Return all compatible detectors × policies × aggregators, in a fixed, shuffled order.

    Those that bring in a method come first, so that a short run tries every method.
    """
    every = [
        (detector, policy, aggregator)
        for detector, policy, aggregator in itertools.product(
            ["none", *REGISTRIES["detectors"].names()], POLICIES, REGISTRIES["aggregators"].names()
        )
        if not (policy == "gate" and detector == "none")
        and not (policy == "reweight" and (detector == "none" or not _weights(detector)))
    ]
    shuffled = [every[i] for i in np.random.default_rng(0).permutation(len(every))]
    earliest = {name: names for names in reversed(shuffled) for name in names}
    return tuple(dict.fromkeys([*earliest.values(), *shuffled]))


def _weights(detector: str) -> bool:
    return bool(REGISTRIES["detectors"].get(detector).gives_weights)


def build(number: int) -> tuple[Guard, str]:
    """Return the guard of a federation, and its description."""
    rng = np.random.default_rng((1, number))
    detector, policy, aggregator = combinations()[number % len(combinations())]
    detectors = [] if detector == "none" else [_make("detectors", detector, rng)]
    params = dict(POLICIES[policy])
    if detectors and (rng.random() < 0.3 or detector == "ensemble"):
        params["rule"] = RULES[str(rng.choice(list(RULES)))]
    stages = (
        [_make("stages", str(rng.choice(REGISTRIES["stages"].names())), rng)] if rng.random() < 0.3 else []
    )
    rule = _make("aggregators", aggregator, rng)
    guard = Guard(detectors, make_policy(policy, **params), rule, stages=stages)
    words = [detector, f"{policy} {params}", aggregator, *(stage.name for stage in stages)]
    return guard, " × ".join(words)


def _make(kind: str, name: str, rng: np.random.Generator) -> Any:
    cls = REGISTRIES[kind].get(name)
    choices = list(variants(cls))
    params = {**choices[rng.integers(len(choices))], **CHEAP.get(name, {})}
    if "num_malicious" in inspect.signature(cls).parameters:
        params["num_malicious"] = [None, 1, 3][rng.integers(3)]
    return cls(**params)


def federation(number: int) -> Tally:
    """Run one guard on its rounds; clients of earlier rounds return."""
    tally, seen = Tally(federations=1), list[ClientId]()
    guard, what = build(number)
    rng, names = np.random.default_rng((2, number)), list(KINDS)
    for step in range(ROUNDS):
        kinds = [names[(number * ROUNDS + step) % len(names)]]  # each kind is equally frequent
        if rng.random() < 0.3:
            kinds.append(names[rng.integers(len(names))])
        made = draft(kinds, int(rng.integers(2**32)), step, seen)
        tally.rounds += 1
        tally.kinds.update(made.kinds)
        try:
            now = tried(guard, made, tally, again=(number + step) % 2 == 0)
            seen = list({str(client): client for client in [*now, *seen]}.values())[:40]
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            tally.failures.append(
                f"federation {number}, round {step} ({', '.join(made.kinds)}; {what}): "
                f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
            )
            break
    return tally


def tried(guard: Guard, made: Draft, tally: Tally, again: bool) -> tuple[ClientId, ...]:
    """Try one round: the guard must refuse it without a trace, or judge it soundly in any order of clients.

    Args:
        guard: the guard; its state carries over to the next round.
        made: the round.
        tally: counts refusals.
        again: whether to judge the clients in another order as well.

    Returns:
        The ids of the judged clients.
    """
    before = pack(guard.state_dict())
    try:
        round = made.build()
        kept = round.updates.matrix.clone()
        outcome = guard.process(round, repeat=True)  # a hostile index must not end the federation
    except FedGuardError as error:
        tally.refusals[type(error).__name__] += 1
        sent = all(kind in CLIENTS_MAY_SEND for kind in made.kinds)
        require(not sent or isinstance(error, TooFewClientsError), f"a client got the round refused: {error}")
        require(pack(guard.state_dict()) == before, "a refused round has changed the state")
        return ()
    require(_same(kept, round.updates.matrix), "the updates were changed")
    sound(round, outcome)
    if again:
        tally.moved += 1
        moved(guard, before, round, outcome, made.rng.permutation(round.n))
    return round.client_ids


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


def sound(round: Round, outcome: Outcome) -> None:
    """Require that an outcome is complete, finite and belongs to this round."""
    n, d, usable = round.n, round.updates.d, round.usable
    require(outcome.client_ids == round.client_ids, "the outcome is of other clients")
    require(outcome.aggregate.shape == (d,) and outcome.aggregate.isfinite().all(), "no finite aggregate")
    require(outcome.aggregate.dtype == torch.float32, f"an aggregate of {outcome.aggregate.dtype}")
    for array in (outcome.weights, outcome.suspects, outcome.banned, outcome.scores):
        require(array.shape == (n,), "not one value per client")
    require(((outcome.weights >= 0) & (outcome.weights <= 1)).all(), "weights outside [0, 1]")
    require(not outcome.weights[~usable].any(), "an unusable update has weight")
    require(outcome.suspects[~usable].all(), "an unusable update is no suspicion")
    require(len(outcome.reasons) == n and all(outcome.reasons), "no reason for every client")
    require(outcome.kept_global == (not outcome.weights.any()), "kept_global does not fit the weights")
    require(
        not (outcome.kept_global and outcome.aggregate.any()), "no client was accepted, yet the model moves"
    )
    scored = usable & ~outcome.banned if outcome.by_detector else np.zeros(n, dtype=bool)
    scored &= np.array([not reason.startswith("not scored: ") for reason in outcome.reasons])  # too few
    require(not np.isnan(outcome.scores[scored]).any(), "a score is NaN")


def moved(guard: Guard, before: bytes, round: Round, outcome: Outcome, order: Any) -> None:
    """Require bit-identical verdicts and state, by id, for the same round with clients in another order."""
    after = pack(guard.state_dict())
    guard.load_state_dict(unpack(before))
    other = guard.process(round.with_updates(round.updates.matrix.clone()).take(order), repeat=True)
    for name in ("suspects", "banned", "weights", "scores"):
        here, there = getattr(outcome, name)[order], getattr(other, name)
        near = (here == there) | ((here != here) & (there != there))
        if not near.all():
            who = other.client_ids[int((~near).argmax())]
            raise AssertionError(f"in another order, {name} of client {who!r} differ: {here} {there}")
    require([outcome.reasons[i] for i in order] == list(other.reasons), "in another order, other reasons")
    require(torch.equal(outcome.aggregate, other.aggregate), "in another order, another aggregate")
    require(pack(guard.state_dict()) == after, "in another order, another state")


def fuzz(rounds: int, first: int = 0) -> Tally:
    """Run ``rounds`` rounds, starting with federation ``first``."""
    tally = Tally()
    with single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(first, first + -(-rounds // ROUNDS)):
            tally.add(federation(number))
    return tally


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return its exit status: nonzero if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m fedguard.testing.fuzz", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=None, help="processes; one per core by default")
    parser.add_argument("--federation", type=int, default=None, help="run only this federation")
    parser.add_argument(
        "--soak", type=int, default=0, help="also run this many rounds of new ids per detector"
    )
    parser.add_argument("--cases", type=int, default=0, help="also run this many mutants per kind of input")
    parser.add_argument("--kind", choices=INPUTS, default=None, help="run only mutants of this kind")
    parser.add_argument("--seed", type=int, default=None, help="run only this mutant of the kind")
    parser.add_argument("--out", type=Path, default=None, help="also write the table to this file")
    given = parser.parse_args(arguments)
    if given.kind is not None:
        one = given.seed is not None
        found = mutated([given.kind], 1 if one else given.cases or 1000, given.seed or 0, given.workers)
        return 1 if found[1] else 0
    start = time.perf_counter()
    if given.federation is not None:
        tally = fuzz(ROUNDS, given.federation)
    else:
        tally = in_parallel(given.rounds, given.workers)
    text = table(tally, time.perf_counter() - start)
    print(text, flush=True)  # the next part takes just as long
    if given.soak:
        grown = soaked(given.soak, given.workers)
        tally.failures += [f"{g.detector} keeps growing" for g in grown if not g.bounded]
        kept = "\n## Memory\n\n" + soak_table(grown)
        print(kept)
        text += kept
    if given.cases:
        mutants, failed = mutated(INPUTS, given.cases, 0, given.workers)
        tally.failures += failed
        text += "\n" + mutants
    if given.out is not None:
        write_file(given.out, text)
    return 1 if tally.failures else 0


def mutated(
    kinds: Sequence[str], cases: int, first: int = 0, workers: int | None = None
) -> tuple[str, list[str]]:
    """Run mutants of replies and files; prints and returns the table, and returns the failures."""
    from ..cli.common import cores
    from .fuzzing.driver import fuzz_in_workers
    from .fuzzing.table import failures_of, table

    found = fuzz_in_workers(dict.fromkeys(kinds, cases), workers or cores(), first)
    print(table(found))
    return table(found), failures_of(found)


def in_parallel(rounds: int, workers: int | None) -> Tally:
    """Run :func:`fuzz` in several processes."""
    total, part = Tally(), 600
    starts = range(0, -(-rounds // ROUNDS), part // ROUNDS)
    sizes = [min(part, rounds - k * ROUNDS) for k in starts]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(fuzz, sizes, starts):
            total.add(tally)
    return total


def soaked(rounds: int, workers: int | None) -> list[Growth]:
    """Run :func:`fedguard.testing.soak.soak` for every detector that keeps state."""
    names = keeping()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(soak, names, [rounds] * len(names)))


def table(tally: Tally, seconds: float) -> str:
    """Return the summary as Markdown."""
    lines = [
        "# Hostile rounds",
        "",
        f"{tally.rounds:,} rounds of {tally.federations:,} federations over {len(combinations()):,} "
        f"combinations of detector, policy and aggregator; {tally.moved:,} rounds were judged again with "
        f"their clients in another order. **Failures: {len(tally.failures)}.** {seconds:.0f} s.",
        "",
        "    make fuzz",
        "",
        "Refused rounds by type of error (no trace left):",
        "",
        "| error | rounds |",
        "|---|---|",
        *(f"| {name} | {count:,} |" for name, count in tally.refusals.most_common()),
        "",
        "Rounds by kind (a round may be of two):",
        "",
        "| kind | rounds |",
        "|---|---|",
        *(f"| {kind} | {tally.kinds[kind]:,} |" for kind in KINDS),
    ]
    failures = [f"- {text}" for text in tally.failures]
    return "\n".join([*lines, *(["", "Failures:", "", *failures] if failures else [])]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
