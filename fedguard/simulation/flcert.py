"""FLCert: a voting ensemble of global models, each trained by its own group of clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.server import map_in_order
from ..core.seeds import numpy_generator
from ..core.state import State
from ..guard import Guard
from ..training.parameters import predict, with_statistics
from .attackers import refuse_prepared
from .client_data import evaluation_batches
from .federation import Federation, Map
from .keys import CellKey
from .leaks import mean_leak
from .placement import cell_device, evaluation_batches_on, model_on
from .progress import LEAK, NOBODY
from .records import ClientRow, RoundRecord
from .settings import Cell, FLCertSettings
from .setup import setup_of
from .stepwise import Stepwise


def groups_of(settings: FLCertSettings, clients: int, seed: int) -> list[list[int]]:
    """The clients of each group: a random partition into equal parts, or an independent draw per group."""
    draw = numpy_generator(seed, "flcert groups")
    if settings.mode == "disjoint":
        parts = np.array_split(draw.permutation(clients), settings.groups)
    else:
        parts = [draw.choice(clients, settings.size, replace=False) for _ in range(settings.groups)]
    return [sorted(part.tolist()) for part in parts]


def count_votes(predictions: Tensor, classes: int) -> Tensor:
    """(samples, classes) how many models predict each label, from (models, samples) predictions."""
    return F.one_hot(predictions, classes).sum(0)


def certified(votes: Tensor, labels: Tensor) -> Tensor:
    """⌊(N_y − max_{z≠y} (N_z + 1[z < y])) / 2⌋: how many malicious clients a prediction withstands.

    Holds for disjoint groups, where a malicious client controls the vote of at most one model. Ties go to
    the smaller label. (samples,); −1 where the prediction is wrong.

    Source: Cao et al., FLCert, IEEE TIFS 2022, Theorem 1.
    """
    own = votes.gather(1, labels[:, None])
    smaller = torch.arange(votes.shape[1], device=votes.device)[None, :] < labels[:, None]
    others = (votes + smaller.long()).scatter(1, labels[:, None], torch.iinfo(torch.int64).min // 4)
    level = (own.squeeze(1) - others.amax(1)).div(2, rounding_mode="floor")
    return torch.where(votes.argmax(1) == labels, level, -1)


class FLCert(Stepwise):
    """argmax_z of the votes of N federations for label z, with ties going to the smaller label.

    Each group has its own guard, which gets the group's share of the assumed attackers. The attacker sees
    one group at a time. With disjoint groups it reports the certified accuracy: the share of test samples
    that the assumed number of malicious clients cannot make wrong.

    Args:
        cell: all settings, with ``defense.flcert``.
        map: runs independent work.

    Source: Cao et al., FLCert, IEEE TIFS 2022, §IV.
    """

    def __init__(self, cell: Cell, map: Map = map_in_order) -> None:
        settings = cell.defense.flcert or FLCertSettings(groups=1)
        self.cell = cell
        self.settings = settings
        groups = groups_of(settings, cell.clients, cell.seed)
        self.members = [Federation(cell, map, group) for group in groups if group]
        refuse_prepared(self.members[0].attack, "defense.flcert")
        self._map = map
        self._key = CellKey.of(cell)

    @property
    def guard(self) -> Guard:
        """The first group's guard; all are built alike."""
        return self.members[0].guard

    def ever_banned(self, client: int) -> bool:
        """Whether any group has banned the client."""
        return any(part.ever_banned(client) for part in self.members if client in part.clients)

    def state_dict(self) -> State:
        """The state of every group."""
        return {"members": [part.state_dict() for part in self.members]}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        for part, own in zip(self.members, state["members"], strict=True):
            part.load_state_dict(own)

    def step(self, index: int) -> RoundRecord:
        """Run one round of every group."""
        done = [part.advance(index) for part in self.members]
        rows = [part.rows(progress) for part, progress in zip(self.members, done, strict=True)]
        seconds: dict[str, float] = {}
        for progress in done:
            for name, value in progress.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + value
        right = safe = hit = math.nan
        if self.cell.tests_after(index):
            right, safe = self._evaluate(targeted=False)
            hit, _ = self._evaluate(targeted=True)
        notes = [f"group {k}: {p.outcome.note if p.outcome else NOBODY}" for k, p in enumerate(done)]
        note = "; ".join(text for text in notes if not text.endswith(": "))
        certified = self.settings.mode == "disjoint" and not math.isnan(safe)
        info = {"flcert": {"certified_accuracy": safe}} if certified else {}
        leaked = mean_leak([dict(progress.leaked) for progress in done])
        info |= {LEAK: leaked} if leaked else {}
        finite = all(bool(part.params.isfinite().all()) for part in self.members)
        merged = self._merged(rows, index)
        return RoundRecord(index, merged, right, math.nan, hit, note, info, seconds, finite)

    def _merged(self, groups: Sequence[Sequence[ClientRow]], index: int) -> list[ClientRow]:
        by_client: dict[int, list[ClientRow]] = {c: [] for c in range(self.cell.clients)}
        for rows in groups:
            for row in rows:
                by_client[row.client].append(row)
        return [merge(client, rows, self.members[0].malicious) for client, rows in by_client.items()]

    def _evaluate(self, targeted: bool) -> tuple[float, float]:
        """Accuracy (or attack success) of the vote, and the certified share; NaN without samples."""
        parts = evaluation_batches(self._key, targeted)
        params = np.stack([part.params.numpy() for part in self.members])
        statistics = np.stack([part.statistics.numpy() for part in self.members])
        jobs = [(self._key, targeted, k, params, statistics) for k in range(len(parts))]
        counts = self._map(vote_job, jobs)
        total = sum(len(part.labels) for part in parts)
        if total == 0:
            return math.nan, math.nan
        right, safe = (sum(column) / total for column in zip(*counts, strict=True))
        return right, safe


def merge(client: int, rows: Sequence[ClientRow], malicious: Sequence[int]) -> ClientRow:
    """One row from a client's rows in all groups: worst score, any suspicion, mean weight."""
    if not rows:
        return ClientRow(
            client, str(client), client in malicious, False, False, math.nan, False, 0.0, False, "in no group"
        )
    asked = [row for row in rows if row.participated] or list(rows)
    worst = next((row for row in asked if row.suspect), asked[0])
    scores = [row.score for row in asked if not math.isnan(row.score)]
    return worst._replace(
        attacking=any(row.attacking for row in rows),
        score=max(scores, default=math.nan),
        suspect=any(row.suspect for row in asked),
        weight=float(np.mean([row.weight for row in asked])),
        banned=any(row.banned for row in rows),
    )


def vote_job(job: VoteJob) -> tuple[int, int]:
    """One batch: the number of samples that the vote gets right, and the number certified."""
    key, targeted, k, params, statistics = job
    with cell_device(key) as device:
        data, model = evaluation_batches_on(key, targeted, device)[k], model_on(key, device)
        models = [with_statistics(model, torch.from_numpy(row.copy())) for row in statistics]
        pairs = zip(models, params, strict=True)
        logits = [predict(model, torch.from_numpy(row.copy()), data.inputs) for model, row in pairs]
        votes = count_votes(torch.stack(logits).argmax(2), setup_of(key).dataset.num_classes)
        level = certified(votes, data.labels)
        return int((level >= 0).sum()), int((level >= key.cell.assumed).sum())


#: (cell, targeted, batch, (N, d) parameters, (N, s) statistics)
VoteJob = tuple[CellKey, bool, int, "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]
