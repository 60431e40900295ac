"""Do signals of one class turned into another see pair flips that the recommended detector misses?

FEDGUARD_DATA=DATA python benchmarks/pair_signals.py [digits|mnist]

Shadow mode, 20 clients, 10 rounds, pseudo-clients; β = 0.5 with 6 and 0.1 with 9 malicious. Development data
only. For classes s and t, of a client's update and of every pseudo-client's:

- share: the weight of "inputs of s, labeled t" in the nearest mix of the server's gradients;
- rows: by how much z_t − z_s of the inputs of s rises through the output layer alone, over ‖u‖;
- harm: the same through the whole model, on 100 validation samples;
- aim: by how much more z_t rises on the inputs of s than on those of t, over ‖u‖.

X is the client's value less that of its matched pseudo-client, less the median over clients, in units of
max(rms over pairs, own pair's) of the pseudo-clients' spread of the last 8 rounds; its mean over 8 rounds.
"any pair" is the largest X; "top pair" X of the pair with the largest mean of max(0, X) over clients, if that
is at least 1.3 times the second's, from round 3 on; "pair rule" the same if the mean is above 2.6, with the
limit 5: constants of an earlier trial on the share. The other limits are what 1 % of the honest clients and
rounds exceed without an attack, on the same data set or on the other one.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from leaderboard import BASE, LARGER
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.ids import ClientId
from fedguard.detectors import _beside_pseudo_clients
from fedguard.detectors._class_cone import nearest_in_cone
from fedguard.detectors._explained import Cones, Explained
from fedguard.detectors._layer_products import _listened
from fedguard.detectors._ranking import by_id
from fedguard.detectors.deepsight import output_layer
from fedguard.detectors.recommended import Recommended
from fedguard.evaluation.suites.suite import Suite
from fedguard.geometry.updates import Updates
from fedguard.simulation.shadow import Shadow
from fedguard.training.parameters import predict

Table = NDArray[np.float64]
KINDS = ("share", "rows", "harm", "aim")
WAYS = ("any pair", "top pair", "pair rule")
PLACES = ((0.5, 6), (0.1, 9))
SEEDS = {"digits": (24, 25), "mnist": (23, 24)}
PAIRS = {"3 to 9": {3: 9}, "0 to 2": {0: 2}, "3 to 9, 2 to 1": {3: 9, 2: 1}}
OTHERS = (
    "label_flip",
    "gaussian",
    "scaling_backdoor",
    "neurotoxin",
    "back_gradient",
    "fang_krum",
    "lie",
    "ipm",
)
WINDOW, FIRST, AHEAD, TOP = 8, 3, 1.3, 2.6
#: The limit of the pair rule, from the same trial as its constants.
RULE = 5.0
SHARE = 0.01


class Heard(NamedTuple):
    """A round: its clients, their verdicts, and (n, kinds, ways) statistics."""

    clients: tuple[ClientId, ...]
    suspects: NDArray[np.bool_]
    statistics: Table


class Listener(Recommended):
    """The recommended detector with pseudo-clients, which keeps the pair signals of every round."""

    card = Card("pair_listener", "pair signals beside the recommended detector", "FedGuard")

    def __init__(self) -> None:
        super().__init__(pseudo_clients=True)
        self.heard: list[Heard] = []
        self._matched: dict[ClientId, Table] = {}
        self._pool: list[Table] = []
        self._means: defaultdict[ClientId, list[Table]] = defaultdict(list)

    def score(self, round: Round) -> Scores:
        """Score, and keep the signals."""
        seen: list[tuple[Updates, Table]] = []

        class Listening(Cones):
            def explain(self, updates: Updates) -> Explained:
                seen.append((updates, _shares(self, updates)))
                return super().explain(updates)

        order = by_id(round.client_ids)
        due = self._calibration.due([round.client_ids[i] for i in order])
        with patch.object(_beside_pseudo_clients, "Cones", Listening):
            scores = super().score(round)
        if len(seen) == 2:
            renewed = [round.client_ids[order[i]] for i in due]
            own, pseudo = (_signals(round, *part, self.samples) for part in seen)
            self.heard.append(
                Heard(round.client_ids, scores.suspects, self._judge(round, own, pseudo, renewed))
            )
        return scores

    def _judge(self, round: Round, own: Table, pseudo: Table, renewed: list[ClientId]) -> Table:
        """(n, kinds, ways) from (·, kinds, C, C) signals of clients and pseudo-clients."""
        self._matched |= dict(zip(renewed, pseudo[len(pseudo) - len(renewed) :], strict=True))
        self._pool = [*self._pool, pseudo][-WINDOW:]
        known = np.concatenate(self._pool)
        spread = known.std(axis=0)
        scale = np.maximum(spread, np.sqrt((spread**2).mean(axis=(1, 2), keepdims=True))) + 1e-12
        beyond = own - np.array([self._matched[client] for client in round.client_ids])
        beyond = (beyond - np.median(beyond, axis=0)) / scale
        for client, row in zip(round.client_ids, beyond, strict=True):
            self._means[client] = [*self._means[client], row][-WINDOW:]
        mean = np.array([np.mean(self._means[client], axis=0) for client in round.client_ids])
        pairs = mean[:, :, ~np.eye(mean.shape[2], dtype=bool)]
        top = np.maximum(pairs, 0).mean(axis=0)  # (kinds, pairs)
        second, first = np.sort(top, axis=1)[:, -2:].T
        alarm = (first >= AHEAD * second) & (round.index + 1 >= FIRST)
        chosen = np.take_along_axis(pairs, top.argmax(axis=1)[None, :, None], axis=2)[:, :, 0]
        ways = [pairs.max(axis=2), np.where(alarm, chosen, 0.0), np.where(alarm & (first > TOP), chosen, 0.0)]
        return np.stack(ways, axis=2)

    def commit(self, round: Round, scores: Scores, decision: Any = None) -> None:
        """Only the calibration remembers."""
        if scores.memory[1] is not None:
            self._calibration.commit(scores.memory[1])


def _shares(cones: Cones, updates: Updates) -> Table:
    """(k, C, C) the weights of the nearest mix of all gradients, with sum 1."""
    norms = np.maximum(updates.norms.numpy(), 1e-30)
    along = cones._gradients.along(updates) / np.outer(norms, np.maximum(cones._lengths, 1e-30))
    weights = nearest_in_cone(cones._gram, along)[1]
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    return (weights / total).reshape(-1, cones.classes, cones.classes)


def _signals(round: Round, updates: Updates, shares: Table, samples: int) -> Table:
    """(k, kinds, C, C) of each update."""
    server, start = round.server, round.global_params
    assert server is not None
    assert server.model is not None
    assert start is not None
    assert server.validation is not None
    data = LabeledData(server.validation.inputs[:samples], server.validation.labels[:samples])
    weight, bias, outputs = output_layer(server.model, updates.d)
    last = [n for n, part in server.model.named_modules() if isinstance(part, torch.nn.Linear)][-1]
    got = _listened(server.model, start, data.inputs, {last})[1][last][0].got
    members = torch.nn.functional.one_hot(data.labels).float()
    members = (members / members.sum(0)).T  # (C, K)
    features, before = members @ got, members @ predict(server.model, start, data.inputs)
    found = []
    for i in range(updates.n):
        u = updates.row(i)
        size = u.norm().clamp(min=1e-30)
        through = features @ u[weight].view(outputs, -1).T + (u[bias] if bias is not None else 0)
        rise = members @ predict(server.model, start + u, data.inputs) - before  # (s, t)
        rows = (through - through.diagonal()[:, None]) / size
        harm, aim = (rise - rise.diagonal()[:, None]) / size, (rise - rise.diagonal()[None]) / size
        found.append(np.stack([shares[i], rows.numpy(), harm.numpy(), aim.numpy()]))
    return np.nan_to_num(np.array(found), nan=0.0, posinf=0.0, neginf=0.0)


class Rows(NamedTuple):
    """Clients and rounds: did the client attack, could it (has a source class), its verdict, statistics."""

    attacker: NDArray[np.bool_]
    able: NDArray[np.bool_]
    suspect: NDArray[np.bool_]
    statistics: Table


def rows(data: str, attack: str, seeds: tuple[int, ...]) -> Iterator[Rows]:
    """The rows of every round of an attack's federations."""
    for beta, malicious in PLACES:
        settings: dict[str, Any] = {**BASE, **({} if data == "digits" else LARGER)}
        spec: Any = attack
        if attack in PAIRS:
            spec = {"name": "label_flip", "mode": "pairs", "pairs": PAIRS[attack]}
        one = Suite(
            name="pairs",
            data=data,
            **settings,
            malicious=malicious if attack != "none" else 0,
            partition={"name": "dirichlet", "beta": beta},
            seeds=list(seeds),
            attacks=[spec],
            defenses={"listener": {"detector": {"name": "pair_signals:Listener"}}},
        )
        for cell in one.cells():
            shadow = Shadow([cell])
            shadow.run()
            (watcher,) = shadow.watchers
            if watcher.error:
                raise SystemExit(watcher.error)
            (listener,) = watcher.guard.detectors.values()
            sources = torch.tensor(list(PAIRS.get(attack, {})))
            setup = shadow.federation.setup  # type: ignore[union-attr]
            for record, heard in zip(watcher.records, listener.heard, strict=True):  # type: ignore[attr-defined]
                bad = {str(row.id): row.malicious for row in record.clients}
                attacker = np.array([bad[str(client)] for client in heard.clients])
                able = [torch.isin(setup.client_samples(int(c)).labels, sources).any() for c in heard.clients]
                yield Rows(attacker, np.array(able, dtype=bool), heard.suspects, heard.statistics)


def joined(parts: Iterator[Rows]) -> Rows:
    """All rounds after one another."""
    return Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def main() -> None:
    """Print limits, misses and false alarms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="*", default=list(SEEDS), help="data sets; both by default")
    torch.set_num_threads(1)
    names = parser.parse_args().data
    clean = {data: joined(rows(data, "none", SEEDS[data])) for data in names}
    flips = {data: {a: joined(rows(data, a, SEEDS[data])) for a in PAIRS} for data in names}
    others = {
        data: joined(one for attack in OTHERS for one in rows(data, attack, SEEDS[data][:1]))
        for data in names
    }
    for data in names:
        _print(data, clean, flips[data], others[data])


def _print(data: str, clean: dict[str, Rows], flips: dict[str, Rows], others: Rows) -> None:
    count = len(clean[data].suspect)
    print(f"\n## {data}: {count:,} honest clients and rounds without an attack\n")
    print(
        "| signal | way | limit of | limit | FPR %, no attack | FPR %, pair flips | FPR %, other attacks | "
        + " | ".join(f"FNR %, {attack}" for attack in flips)
        + " |"
    )
    print("|:--|:--|:--|--:|--:|--:|--:|" + "--:|" * len(flips))
    empty = np.zeros(0)
    _line("the detector alone", "", "", None, clean[data], flips, others, empty)
    for k, kind in enumerate(KINDS):
        for w, way in enumerate(WAYS):
            if way == "pair rule":
                _line(kind, way, "", RULE, clean[data], flips, others, np.array([k, w]))
                continue
            for source in clean:
                limit = float(np.quantile(clean[source].statistics[:, k, w], 1 - SHARE))
                _line(kind, way, source, limit, clean[data], flips, others, np.array([k, w]))


def _line(
    kind: str,
    way: str,
    source: str,
    limit: float | None,
    clean: Rows,
    flips: dict[str, Rows],
    others: Rows,
    place: NDArray[Any],
) -> None:
    def beyond(part: Rows) -> NDArray[np.bool_]:
        if limit is None:
            return part.suspect
        return part.suspect | (part.statistics[:, place[0], place[1]] > limit)

    def false(part: Rows) -> float:
        return float(100 * beyond(part)[~part.attacker].mean())

    some = [100 * (~beyond(part))[part.attacker & part.able].mean() for part in flips.values()]
    honest = np.concatenate([beyond(part)[~part.attacker] for part in flips.values()])
    shown = "" if limit is None else f"{limit:.2f}"
    print(
        f"| {kind} | {way} | {source} | {shown} | {100 * beyond(clean).mean():.1f} "
        f"| {100 * honest.mean():.1f} | {false(others):.1f} | "
        + " | ".join(f"{one:.0f}" for one in some)
        + " |",
        flush=True,
    )


if __name__ == "__main__":
    main()
