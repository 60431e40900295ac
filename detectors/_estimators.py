"""Load outlier detectors of scikit-learn and PyOD by class path, and apply them to a table."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.core.errors import DetectorError, ParameterError
from fedguard.core.params import nearest

#: Class paths to suggest for a misspelled one.
KNOWN = (
    "sklearn.ensemble.IsolationForest",
    "sklearn.neighbors.LocalOutlierFactor",
    "sklearn.svm.OneClassSVM",
    "sklearn.covariance.EllipticEnvelope",
    "pyod.models.abod.ABOD",
    "pyod.models.cof.COF",
    "pyod.models.copod.COPOD",
    "pyod.models.ecod.ECOD",
    "pyod.models.hbos.HBOS",
    "pyod.models.inne.INNE",
    "pyod.models.knn.KNN",
    "pyod.models.loda.LODA",
    "pyod.models.mcd.MCD",
    "pyod.models.pca.PCA",
)

#: Fewer neighbors leave the score undefined: ABOD takes the variance of the angles between pairs of them.
LEAST_NEIGHBORS = {"pyod.models.abod.ABOD": 3, "pyod.models.cof.COF": 2}


def load(path: str) -> type[Any]:
    """Import the class at ``package.module.Class``, from scikit-learn or PyOD only.

    Raises:
        ParameterError: another package, an unknown class, not an outlier detector, or PyOD is not installed.
    """
    module, _, name = path.rpartition(".")
    package = path.partition(".")[0]
    if package not in ("sklearn", "pyod") or not all(part.isidentifier() for part in path.split(".")):
        raise ParameterError(
            f"sklearn: estimator is {path!r}{nearest(path, KNOWN)}; write the class path of an outlier "
            f"detector of sklearn or pyod, such as {KNOWN[0]!r} (name your own detector by 'module:Class')"
        )
    if package == "pyod" and importlib.util.find_spec("pyod") is None:
        raise ParameterError(
            f'sklearn: estimator {path} needs PyOD, which is not installed: pip install "fedguard[pyod]"'
        )
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything if a dependency is missing
        raise ParameterError(
            f"sklearn: estimator {path!r} cannot be imported{nearest(path, KNOWN)} ({error})"
        ) from error
    if not _detects(cls):
        raise ParameterError(
            f"sklearn: estimator {path} is not an outlier detector{nearest(path, KNOWN)}; use one of "
            f"sklearn, such as {KNOWN[0]}, or of pyod.models"
        )
    return cls  # type: ignore[no-any-return]


def _detects(cls: Any) -> bool:
    if not inspect.isclass(cls) or inspect.isabstract(cls):
        return False
    from sklearn.base import BaseEstimator, OutlierMixin  # a slow import

    return (issubclass(cls, OutlierMixin) and issubclass(cls, BaseEstimator)) or _of_pyod(cls)


def _of_pyod(cls: type[Any]) -> bool:
    return any(base.__module__ == "pyod.models.base" for base in cls.__mro__)


def parameters(cls: type[Any]) -> dict[str, Any]:
    """The parameters of a class by name, with their defaults."""
    named = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def check(cls: type[Any], params: Mapping[str, Any]) -> None:
    """Reject parameters that the class does not accept, as far as can be checked without data.

    Raises:
        ParameterError: names the parameter, or quotes the error of the class.
    """
    known = parameters(cls)
    for key in params:
        if key not in known:
            raise ParameterError(
                f"sklearn: estimator_params: {cls.__name__} has no parameter {key!r}"
                f"{nearest(str(key), known)} (known: {', '.join(known)})"
            )
    try:
        estimator = cls(**params)
        if not _of_pyod(cls):
            estimator._validate_params()  # scikit-learn checks only when it fits
    except Exception as error:  # third-party constructors may raise anything
        raise ParameterError(f"sklearn: estimator_params do not suit {cls.__name__}: {error}") from error
    if not _of_pyod(cls) and not hasattr(estimator, "fit_predict"):
        raise ParameterError(
            f"sklearn: estimator_params: {cls.__name__} with novelty cannot judge the clients that it was "
            "fitted on; leave novelty off"
        )


def least(cls: type[Any]) -> int:
    """The smallest number of clients for which the estimator is defined."""
    return 1 + LEAST_NEIGHBORS.get(f"{cls.__module__}.{cls.__name__}", 1)


def judge(
    cls: type[Any], params: Mapping[str, Any], columns: NDArray[Any], seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Fit on all rows; (n,) abnormality, higher is more abnormal, and (n,) the estimator's flags.

    NaN counts as +Inf. If no value is finite, the estimator did not separate any rows: all get 0, none is
    flagged.

    Args:
        cls: see :func:`load`.
        params: its parameters; :class:`fedguard.detectors.sklearn.Sklearn` documents what is added.
        columns: (n, k) the table.
        seed: for randomized estimators.

    Raises:
        DetectorError: the estimator fails on this table.
    """
    apart = (columns != np.median(columns, axis=0)).any(axis=1)
    if apart.mean() < 0.5:  # no spread to measure by, or no column at all
        return np.where(apart, np.inf, 0.0), apart
    try:
        with warnings.catch_warnings(), _own_chance(seed):
            warnings.simplefilter("ignore")  # about few rows or ties, which are common in rounds
            estimator = cls(**_completed(cls, params, len(columns), seed))
            flagged = _fit(estimator, columns)
            values = np.asarray(_abnormality(estimator, columns), dtype=np.float64)
    except Exception as error:  # third-party estimators may raise anything
        n, k = columns.shape
        raise DetectorError(
            f"sklearn: {cls.__name__} cannot judge {n} clients by {k} features: {error}"
        ) from error
    if not np.isfinite(values).any():
        return np.zeros(len(columns)), np.zeros(len(columns), dtype=bool)
    return np.where(np.isnan(values), np.inf, values), flagged


@contextlib.contextmanager
def _own_chance(seed: int) -> Iterator[None]:
    """Seed NumPy's and torch's global generators, and restore them afterwards."""
    before, torch_before = np.random.get_state(), torch.get_rng_state()
    try:
        np.random.set_state(np.random.RandomState(seed).get_state())
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        yield
    finally:
        np.random.set_state(before)
        torch.set_rng_state(torch_before)


def _completed(cls: type[Any], params: Mapping[str, Any], n: int, seed: int) -> dict[str, Any]:
    """The parameters, plus a seed if the class takes one, with at most n − 1 neighbors."""
    known, given = parameters(cls), dict(params)
    if "random_state" in known and given.get("random_state") is None:
        given["random_state"] = seed
    if isinstance(given.get("n_neighbors"), int):
        given["n_neighbors"] = min(given["n_neighbors"], n - 1)
    elif isinstance(known.get("n_neighbors"), int):
        given["n_neighbors"] = min(known["n_neighbors"], max(n // 2, least(cls) - 1))
    return given


def _fit(estimator: Any, columns: NDArray[Any]) -> NDArray[np.bool_]:
    if _of_pyod(type(estimator)):
        estimator.fit(columns)
        return np.array(estimator.labels_ == 1, dtype=bool)
    return np.array(estimator.fit_predict(columns) == -1, dtype=bool)


def _abnormality(estimator: Any, columns: NDArray[Any]) -> Any:
    if _of_pyod(type(estimator)):
        return estimator.decision_scores_
    if hasattr(estimator, "negative_outlier_factor_"):
        return -estimator.negative_outlier_factor_
    if hasattr(estimator, "score_samples"):
        return -estimator.score_samples(columns)
    return -estimator.decision_function(columns)
