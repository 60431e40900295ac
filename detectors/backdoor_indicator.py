"""BackdoorIndicator: who keeps the task that the server planted, as training a backdoor does."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.threads import single_thread
from fedguard.training.indicator import PlantedTask, known, seen_by


class BackdoorIndicator(Detector):
    """max over labels c of client i's accuracy on the planted samples of label c; suspects: ≥ ``threshold``.

    Use it with the stage ``indicator_task``, which plants samples unlike the clients' data, with random
    labels, into the model that is sent. Honest training forgets them. A backdoor, whose samples are unlike
    the honest ones, too, keeps those with its own target label: so the paper found.

    Client i's model w_{t−1} + u_i is tested with the BatchNorm statistics of the planted samples instead
    of its own. Models without BatchNorm are tested as they are. In small networks honest clients keep some
    label as well, and the rule then accuses them: ``benchmarks/results/backdoor_indicator.md``.

    Rounds whose global model does not know the task are not judged (all scores 0, no suspects): the first
    one, any before the stage's ``start``, and all of them without the stage. Otherwise a model that gives all
    such samples one label would have an accuracy of 1 on that label. What was planted is in the round's
    ``info``: "planted".

    Differs from the code: it keeps the running averages of BatchNorm from the end of the server's training;
    here they are the mean over the batches, at the model that was sent, so that the detector has no state. A
    client whose model predicts something that is not finite is a suspect. The code then clips norms and
    halves the step: add the stage ``norm_clipping`` before ``indicator_task``.

    Args:
        samples: as in the stage.
        source: as in the stage.
        standardize: as in the stage.
        threshold: an accuracy in (0, 1]; 0.95, in the authors' settings for CIFAR-100 0.85.
        planted: the least share of all samples that the global model must label as planted for a round to be
            judged; FedGuard's.

    Raises:
        ParameterError: a parameter out of range.

    Source: Li & Dai, BackdoorIndicator, USENIX Security 2024. Read: the abstract, and
    the authors' ``IndicatorServer.py``, ``WMFLDataloader.py`` and settings.

    Example:
        >>> from fedguard import Guard
        >>> guard = Guard("backdoor_indicator", stages="indicator_task")
        >>> guard.detectors
        {'backdoor_indicator': BackdoorIndicator()}
    """

    card = Card(
        "backdoor_indicator",
        "whether the model keeps a task that the server planted",
        "Li & Dai, BackdoorIndicator, USENIX Security 2024",
    )
    needs = frozenset({"model", "global_params"})
    tasks = frozenset({"classification"})
    makes_inputs = True
    check_with = MappingProxyType({"samples": 60, "planted": 0.0})
    exempt = MappingProxyType(
        {"planted attack on top": "the checks' models have no task in them that a backdoor could keep"}
    )

    def __init__(
        self,
        samples: int = 800,
        source: str = "noise",
        standardize: bool = True,
        threshold: float = 0.95,
        planted: float = 0.5,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ParameterError(f"backdoor_indicator: threshold is {threshold}; use an accuracy in (0, 1]")
        if not 0 <= planted <= 1:
            raise ParameterError(f"backdoor_indicator: planted is {planted}; use a share in [0, 1]")
        self.task = PlantedTask(samples, source, standardize)
        self.threshold = threshold
        self.planted = planted

    def score(self, round: Round) -> Scores:
        """Measure the global model, then every client's."""
        server, base = round.server, round.global_params
        if server is None or server.model is None or base is None:
            raise NeedError("backdoor_indicator needs model and global_params")
        with single_thread():
            data = self.task.data(server)
            model = seen_by(server.model, base, data.inputs)
            there = known(model, base, data).overall
            info = {"planted": there if there == there else 0.0}
            if not there >= self.planted:
                return Scores(np.zeros(round.n), np.zeros(round.n, dtype=bool), "not judged", info=info)
            rows = (round.updates.row(i) for i in range(round.n))
            found = [known(model, base + row.to(base.device), data) for row in rows]
        best = np.array([one.best for one in found])
        broken = np.isnan(best)
        values = np.where(broken, np.inf, best)
        return Scores(
            values,
            values >= self.threshold,
            f"its model still knows the server's task for one label (accuracy from {self.threshold:g})",
            info=info,
            reasons=tuple(_reason(one.best, one.label) for one in found),
        )


def _reason(best: float, label: int) -> str:
    if best != best:
        return "its model's predictions are not finite"
    return f"its model still knows the server's task for label {label} ({best:.0%})"
