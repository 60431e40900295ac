"""Any outlier detector of scikit-learn or PyOD, on features of the updates."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.seeds import generator
from fedguard.core.threads import single_thread

from ._estimators import check, judge, least, load
from ._features import KINDS, Kind, features
from ._ranking import by_id


class Sklearn(Detector):
    """s_i = −score_samples of an estimator fitted on this round's clients; its outliers are suspects.

    LocalOutlierFactor uses −negative_outlier_factor_. PyOD uses decision_scores_ and labels_; it flags the
    share ``contamination``, 0.1 unless set, in clean rounds, too.

    Features of an update, centered on the round's mean:

    - "random_projection": its products with ``components`` random directions, the same in every round.
    - "pca": its coordinates along the first ``components`` principal components of the round.
    - "raw": all parameters.
    - "last_layer": the parameters of the model's last layer.
    - "statistics": norm, mean, standard deviation, largest absolute entry, shares of positive and of zero
      entries, cosine to the mean update, distances to the coordinate-wise median and to the nearest other
      client, each divided by its standard deviation.

    The first four are divided by one number, their root mean square, so that directions keep their
    proportions. Random projections are the default because the default estimator looks at one feature at a
    time: an outlier shows in all of them, but in one principal component only.

    The libraries leave some points open. Rows are sorted by client id, since randomized estimators depend on
    the order. Features in which all clients agree are left out; without any feature, all scores are 0 and
    there are no suspects. Identical updates share the highest of their scores. A score of NaN counts as +Inf;
    if no score is finite, all are 0 and there are no suspects. ``random_state``, unless set, comes from the
    server's seed and the round. ``n_neighbors`` is at most n − 1, and unless set at most ⌊n/2⌋, because with
    n − 1 neighbors all clients are as far away as the outlier. ABOD needs at least 3 neighbors and COF 2;
    smaller rounds raise an error. If more than half of the clients agree in every feature, there is no scale:
    the others get +Inf and are suspects.

    Only classes of the packages ``sklearn`` and ``pyod`` are imported.

    Args:
        estimator: class path, for example "sklearn.neighbors.LocalOutlierFactor", "sklearn.svm.OneClassSVM",
            "sklearn.covariance.EllipticEnvelope" (for many more clients than features) or
            "pyod.models.ecod.ECOD" (pip install "fedguard[pyod]").
        estimator_params: the estimator's parameters by name; defaults if absent.
        features: the columns that the estimator sees, see above.
        components: the number of directions for "random_projection" and "pca".

    Raises:
        ParameterError: an unknown class, not an outlier detector, or parameters that it does not take.

    Source: Pedregosa et al., scikit-learn, JMLR 2011; Zhao et al., PyOD, JMLR 2019; default estimator: Liu
    et al., Isolation Forest, ICDM 2008.
    """

    card = Card(
        "sklearn",
        "any scikit-learn or PyOD outlier detector, on features of the updates",
        "Pedregosa et al., scikit-learn, JMLR 2011",
    )
    check_with = MappingProxyType({"estimator_params": {"n_estimators": 8}})
    check_plant_with = MappingProxyType({"estimator_params": None})

    def __init__(
        self,
        estimator: str = "sklearn.ensemble.IsolationForest",
        estimator_params: dict[str, Any] | None = None,
        features: Kind = "random_projection",
        components: int = 10,
    ) -> None:
        if features not in KINDS:
            raise ParameterError(f"sklearn: features is {features!r}; use one of {', '.join(KINDS)}")
        if components < 1:
            raise ParameterError(f"sklearn: components is {components}; at least one is needed")
        self.estimator = load(estimator)
        self.estimator_params = dict(estimator_params or {})
        check(self.estimator, self.estimator_params)
        self.features = features
        self.components = components
        self.needs = frozenset({"model"} if features == "last_layer" else ())

    def min_clients(self) -> int:
        """2, or more where the estimator needs more neighbors."""
        return least(self.estimator)

    def score(self, round: Round) -> Scores:
        """Fit the estimator on the clients of this round and score them."""
        order = by_id(round.client_ids)
        values, flagged = np.zeros(round.n), np.zeros(round.n, dtype=bool)
        with single_thread():
            part = round.take(order)
            columns = features(part, self.features, self.components)
            values[order], flagged[order] = self._judged(part, columns)
        name = self.estimator.__name__
        return Scores(
            values,
            flagged,
            f"an outlier to {name} by {self.features.replace('_', ' ')}",
            info={"features": float(columns.shape[1])},
        )

    def _judged(self, round: Round, columns: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        draw = (
            round.server.generator("sklearn", round.index)
            if round.server
            else generator(0, "sklearn", round.index)
        )
        seed = int(torch.randint(2**31 - 1, (), generator=draw))
        values, flagged = judge(self.estimator, self.estimator_params, columns, seed)
        for twins in _identical(round):
            values[twins], flagged[twins] = values[twins].max(), flagged[twins].any()
        return values, flagged


def _identical(round: Round) -> list[list[int]]:
    """Groups (positions) of two or more clients with the same update."""
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for i in range(round.n):
        groups[hashlib.sha256((round.updates.row(i).cpu().numpy() + 0).tobytes()).digest()].append(
            i
        )  # −0 + 0 is 0
    return [group for group in groups.values() if len(group) > 1]
