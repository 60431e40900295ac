"""The adapter for scikit-learn and PyOD: their estimators called directly on features computed by hand."""

import importlib
import importlib.util
import math
import sys
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.core.errors import DetectorError, NeedError, ParameterError, TooFewClientsError
from fedguard.detectors import _features
from fedguard.detectors._estimators import judge

FOREST = "sklearn.ensemble.IsolationForest"
LOF = "sklearn.neighbors.LocalOutlierFactor"
SVM = "sklearn.svm.OneClassSVM"
ENVELOPE = "sklearn.covariance.EllipticEnvelope"
EVERY = (FOREST, LOF, SVM, ENVELOPE)
KINDS = ("raw", "random_projection", "pca", "last_layer", "statistics")
#: An envelope of 14 clients in more than 13 dimensions is rounding.
PAIRS = [
    (estimator, kind)
    for estimator in EVERY
    for kind in KINDS
    if kind != "random_projection" and not (estimator == ENVELOPE and kind == "raw")
]
MODEL = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))  # 12 + 3, then 6 + 2


def updates_of(seed, n=14, d=23, outlier=None):
    matrix = np.random.default_rng(seed).normal(size=(n, d)) * 0.01 + 0.003
    if outlier is not None:
        matrix[outlier] *= 30
    return matrix.astype(np.float32)


def detect(updates, ids=None, index=0, seed=0, **params):
    server = Server(model=MODEL, seed=seed)
    if params.get("estimator") == FOREST:
        params["estimator_params"] = {"n_estimators": 10, **params.get("estimator_params", {})}
    return make_detector("sklearn", **params)(Round(updates, client_ids=ids, index=index, server=server))


def unit(columns):
    """Divided by the root mean square of all entries."""
    total = sum(value**2 for row in columns for value in row)
    return columns / math.sqrt(total / columns.size)


def centerd(updates):
    wide = updates.astype(np.float64)
    return wide - wide.mean(0)


def principal_by_hand(updates, k):
    """From the SVD of the matrix itself; the largest entry of every left vector is positive."""
    left, sizes, _ = np.linalg.svd(centerd(updates), full_matrices=False)
    for j in range(left.shape[1]):
        if left[np.abs(left[:, j]).argmax(), j] < 0:
            left[:, j] *= -1
    return (left * sizes)[:, :k]


def statistics_by_hand(updates):
    rows = [[float(x) for x in row] for row in updates]
    n, d = updates.shape
    mean = [sum(row[k] for row in rows) / n for k in range(d)]
    median = [float(np.median([row[k] for row in rows])) for k in range(d)]

    def length(vector):
        return math.sqrt(sum(x * x for x in vector))

    def distance(a, b):
        return length([x - y for x, y in zip(a, b, strict=True)])

    table = []
    for i, row in enumerate(rows):
        average = sum(row) / d
        table.append(
            [
                length(row),
                average,
                math.sqrt(sum((x - average) ** 2 for x in row) / d),
                max(abs(x) for x in row),
                sum(x > 0 for x in row) / d,
                sum(x == 0 for x in row) / d,
                sum(x * y for x, y in zip(row, mean, strict=True)) / (length(row) * length(mean)),
                distance(row, median),
                min(distance(row, other) for j, other in enumerate(rows) if j != i),
            ]
        )
    return np.array(table)


def standardized(columns):
    result = []
    for column in columns.T:
        away = column - column.mean()
        if np.abs(away).max() > 1e-12 * np.abs(column).max():
            result.append(away / math.sqrt((away**2).mean()))
    return np.array(result).T


def features_by_hand(updates, kind):
    return {
        "raw": lambda: unit(centerd(updates)),
        "last_layer": lambda: unit(centerd(updates[:, 15:])),
        "pca": lambda: unit(principal_by_hand(updates, 5)),
        "statistics": lambda: standardized(statistics_by_hand(updates)),
    }[kind]()


def by_sklearn(estimator, columns, **params):
    """(how abnormal, flagged) straight from the library, by the estimator's own documentation."""
    n = len(columns)
    if estimator == FOREST:
        fitted = IsolationForest(**params).fit(columns)
        return -fitted.score_samples(columns), fitted.predict(columns) == -1
    if estimator == LOF:
        fitted = LocalOutlierFactor(n_neighbors=n // 2)
        flagged = fitted.fit_predict(columns) == -1
        return -fitted.negative_outlier_factor_, flagged
    if estimator == SVM:
        fitted = OneClassSVM().fit(columns)
        return -fitted.score_samples(columns), fitted.predict(columns) == -1
    fitted = EllipticEnvelope(**params).fit(columns)
    return fitted.mahalanobis(columns), fitted.predict(columns) == -1


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("estimator", "kind"), PAIRS)
def test_scores_are_those_of_the_library_on_features_by_hand(estimator, kind, seed):
    updates = updates_of(seed, outlier=3)
    updates[5, ::4] = 0
    fixed = {"random_state": 7} if estimator in (FOREST, ENVELOPE) else {}
    if estimator == FOREST:
        fixed["n_estimators"] = 100 if seed == 0 else 10
    scores = detect(updates, estimator=estimator, estimator_params=fixed, features=kind, components=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, flagged = by_sklearn(estimator, features_by_hand(updates, kind), **fixed)
    np.testing.assert_allclose(scores.values, values, rtol=1e-4)
    assert scores.suspects.tolist() == flagged.tolist()


@pytest.mark.parametrize(("estimator", "kind"), [*PAIRS, *((e, "random_projection") for e in EVERY)])
def test_an_outlier_has_the_highest_score(estimator, kind):
    """The trap: scikit-learn's scores are low for outliers."""
    scores = detect(updates_of(2, n=20, outlier=6), estimator=estimator, features=kind, components=3)
    assert scores.values.argmax() == 6
    if estimator != SVM:  # flags half of all clients, with kernel values of distant points rounded to zero
        assert scores.suspects[6]


def test_the_statistics_one_by_one():
    updates = updates_of(4, n=5, d=6)
    updates[0, :3] = 0
    ours = _features.statistics(Round(updates).updates)
    np.testing.assert_allclose(ours, statistics_by_hand(updates), rtol=1e-9)
    zero = np.zeros((3, 4), dtype=np.float32)
    assert _features.statistics(Round(zero).updates).tolist() == [[0, 0, 0, 0, 0, 1, 0, 0, 0]] * 3


def directions(d, k, seed, index=0):
    """The random directions, up to what is common to all clients: from the projections of unit vectors."""
    server = Server(seed=seed)
    matrix = np.vstack([np.eye(d), np.zeros(d)]).astype(np.float32)
    result = _features.projections(Round(matrix, index=index, server=server), k).numpy()
    return result[:-1] - result[-1]


def test_random_projections_are_linear_and_the_same_in_every_round():
    found = directions(40, 6, seed=3)
    np.testing.assert_array_equal(directions(40, 6, seed=3, index=9), found)
    assert not np.allclose(directions(40, 6, seed=4), found)
    updates = updates_of(0, n=9, d=40)
    ours = _features.projections(Round(updates, server=Server(seed=3)), 6).numpy()
    np.testing.assert_allclose(ours, centerd(updates) @ found, atol=1e-12)


def test_random_directions_are_independent_standard_normals():
    """Also across the parts in which they are drawn: no direction repeats itself."""
    found = directions(600, 50, seed=0)
    assert abs(found.mean()) < 3 / math.sqrt(found.size)
    assert abs(found.std() - 1) < 0.02
    assert abs((found**4).mean() - 3) < 0.15
    wide = np.zeros((3, 2 * _features.CHUNK + 5), dtype=np.float32)
    wide[0, 1], wide[1, _features.CHUNK + 1] = 1, 1
    result = _features.projections(Round(wide), 4).numpy()
    assert np.abs((result[0] - result[2]) - (result[1] - result[2])).min() > 1e-6


def test_projections_keep_distances():
    updates = updates_of(1, n=8, d=500)
    projected = _features.projections(Round(updates), 4000).numpy()
    for i in range(8):
        for j in range(i):
            true = np.linalg.norm(centerd(updates)[i] - centerd(updates)[j])
            assert np.linalg.norm(projected[i] - projected[j]) / math.sqrt(4000) == pytest.approx(
                true, rel=0.06
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", EVERY)
def test_the_order_of_arrival_changes_no_bit(estimator, kind):
    """Estimators that draw rows depend on their order."""
    updates = updates_of(5)
    ids = [3, "b", 11, 2, "a", 0, 1, 14, "z", 9, 8, 7, 6, 5]
    order = np.random.default_rng(0).permutation(14)
    here = detect(updates, ids, estimator=estimator, features=kind)
    there = detect(updates[order], [ids[i] for i in order], estimator=estimator, features=kind)
    assert there.values.tolist() == here.values[order].tolist()
    assert there.suspects.tolist() == here.suspects[order].tolist()


def test_chance_comes_from_the_servers_seed_and_the_round_unless_set():
    updates = updates_of(6)

    def values(seed=0, index=0, **params):
        return detect(
            updates, seed=seed, index=index, features="raw", estimator_params={"n_estimators": 10, **params}
        ).values.tolist()

    assert values() == values()
    assert values(random_state=None) == values(), "no number that nobody could repeat"
    assert values() != values(index=1)
    assert values() != values(seed=1)
    assert values(random_state=7) == values(index=1, seed=1, random_state=7)
    assert values(random_state=7) != values()


def test_neighbors_by_default_are_at_most_half_of_the_clients():
    """With 20 neighbors among 20 clients, as the library has it, everybody is as far as the outlier."""
    updates = updates_of(7, n=20, outlier=4)
    columns = features_by_hand(updates, "raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        blind = LocalOutlierFactor()
        assert (blind.fit_predict(columns) == 1).all()
    scores = detect(updates, estimator=LOF, features="raw")
    assert scores.suspects.tolist() == [i == 4 for i in range(20)]
    as_set = detect(updates, estimator=LOF, features="raw", estimator_params={"n_neighbors": 99})
    np.testing.assert_allclose(as_set.values, -blind.negative_outlier_factor_, rtol=1e-5)


@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_of_all_updates_does_not_matter(estimator, kind):
    """Trees take differences below 1e-7 for nothing: unscaled, small updates would all look the same."""
    updates = updates_of(8, n=12, outlier=1)
    params = {"estimator": estimator, "features": kind, "components": 3}
    here = detect(updates, **params)
    there = detect((updates.astype(np.float64) * 1e-30).astype(np.float32), **params)
    np.testing.assert_allclose(there.values, here.values, rtol=2e-2, atol=1e-6)
    assert len(set(here.values)) > 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.filterwarnings("error")
def test_identical_updates_get_identical_scores(estimator, kind):
    updates = updates_of(9, n=13)
    updates[[2, 5, 8]] = updates[2]
    updates[[3, 4]] = 0
    updates[4] = -updates[4]  # −0 is 0
    scores = detect(updates, estimator=estimator, features=kind, components=4)
    for group in ([2, 5, 8], [3, 4]):
        assert len(set(scores.values[group])) == 1
        assert len(set(scores.suspects[group])) == 1
    assert len(set(scores.values)) > 3


@pytest.mark.thin(3)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", EVERY)
@pytest.mark.parametrize("case", ["same", "zero", "one apart", "huge", "two huge", "few"])
@pytest.mark.filterwarnings("error")
def test_degenerate_rounds_have_a_defined_outcome(estimator, kind, case):
    updates = updates_of(10, n=9)
    if case in ("same", "one apart"):
        updates[:] = updates[0]
    if case == "zero":
        updates[:] = 0
    if case == "one apart":
        updates[4] += 0.1
    if case in ("huge", "two huge"):
        updates[4] = 3e38 * np.sign(updates[4])
    if case == "two huge":
        updates[6] = -updates[4]
    updates = updates[:3] if case == "few" else updates
    scores = detect(updates, estimator=estimator, features=kind, components=3)
    assert not np.isnan(scores.values).any()
    if case in ("same", "zero"):
        assert scores.values.tolist() == [0] * 9
        assert not scores.suspects.any()
        assert scores.info["features"] == 0
    if case in ("one apart", "huge"):
        assert scores.values.argmax() == 4
        assert scores.suspects[4]
    if case == "one apart":
        assert np.delete(scores.values, 4).tolist() == [0] * 8


@pytest.mark.parametrize("estimator", EVERY)
def test_no_spread_to_measure_by(estimator):
    """More than half coincide, which makes some estimators give up: the others are infinitely far."""
    updates = np.zeros((8, 3), dtype=np.float32)
    updates[2] = 1
    with pytest.raises(ValueError, match="covariance"):
        EllipticEnvelope().fit(unit(centerd(updates)[:, :1]))
    updates[4:6] = [[1, 2, 3], [3, 2, 0]]
    scores = detect(updates, estimator=estimator, features="raw")
    assert scores.values.tolist() == [0, 0, math.inf, 0, math.inf, math.inf, 0, 0]
    assert scores.suspects.tolist() == [value > 0 for value in scores.values]
    updates[4:7] = [[-1, 2, -3], [3, -2, 1], [-2, -1, 2]]
    assert np.isfinite(detect(updates, estimator=estimator, features="raw").values).all(), (
        "only half coincide"
    )


def moody(answer, flags=None):
    """An estimator's class that fails or says what it is told."""

    class Moody:
        def fit_predict(self, columns):
            if answer is None:
                raise RuntimeError("not today")
            return np.ones(len(columns)) if flags is None else np.array(flags)

        def decision_function(self, columns):
            return np.array(answer)

    return Moody


def test_what_an_estimator_gets_wrong_is_not_passed_on():
    detector = make_detector("sklearn")
    detector.estimator = moody([1.0, np.nan, -2.0])
    assert detector(updates_of(0, n=3)).values.tolist() == [-1, math.inf, 2], "by decision_function"
    detector.estimator = moody(None)
    with pytest.raises(
        DetectorError, match="sklearn: Moody cannot judge 3 clients by 10 features: not today"
    ):
        detector(updates_of(0, n=3))


def test_an_estimator_that_tells_identical_updates_apart_is_overruled():
    updates = updates_of(0, n=6)
    updates[[1, 3, 4]] = 0
    updates[4] = -updates[4]  # −0 is 0
    detector = make_detector("sklearn")
    detector.estimator = moody([0.0, 1.0, 2.0, -3.0, 4.0, 5.0], [1, 1, -1, -1, 1, 1])
    scores = detector(updates)
    assert scores.values.tolist() == [0, 3, -2, 3, 3, -5]
    assert scores.suspects.tolist() == [False, True, True, True, True, False]


def test_estimators_that_draw_from_global_generators_draw_from_the_servers_seed():
    """Some of PyOD's take no ``random_state``."""

    class Dicing:
        def fit_predict(self, columns):
            return np.ones(len(columns))

        def decision_function(self, columns):
            return np.random.random(len(columns)) + torch.rand(len(columns)).numpy()

    detector = make_detector("sklearn")
    detector.estimator = Dicing
    rounds = [Round(updates_of(0), index=t) for t in (0, 1)]
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = detector(rounds[0]).values.tolist()
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    np.random.random()
    torch.rand(1)
    assert detector(rounds[0]).values.tolist() == first
    assert detector(rounds[1]).values.tolist() != first
    assert detector(rounds[0].with_server(seed=1)).values.tolist() != first
    assert len(set(first)) == 14


def test_no_difference_overflows():
    """6e38 apart is beyond float32, though the updates are not."""
    updates = np.full((9, 4), -3e38, dtype=np.float32)
    updates[:5] *= np.linspace(0.9, 1, 5)[:, None]
    updates[4] = 3e38
    scores = detect(updates, estimator=LOF, features="raw")
    assert scores.values.argmax() == 4
    assert np.isfinite(scores.values).all()


def test_statistics_that_differ_by_rounding_do_not_differ():
    """The same entries in another order, shifted round and round: nobody stands out in anything."""
    entries = np.random.default_rng(0).normal(size=11)
    updates = np.stack([np.roll(entries, k) for k in range(11)]).astype(np.float32)
    assert np.ptp(_features.statistics(Round(updates).updates), axis=0).max() > 0
    assert detect(updates, features="statistics").values.tolist() == [0] * 11


def test_the_last_layer_needs_the_model_and_nothing_else_does():
    detector = make_detector("sklearn", features="last_layer")
    assert detector.needs == {"model"}
    with pytest.raises(NeedError, match="sklearn needs model"):
        detector(updates_of(0))
    for kind in set(KINDS) - {"last_layer"}:
        assert make_detector("sklearn", features=kind).needs == frozenset()


def test_one_client_alone_is_refused():
    with pytest.raises(TooFewClientsError, match="sklearn needs at least 2 clients, the round has 1"):
        make_detector("sklearn")(updates_of(0, n=1))
    assert make_detector("sklearn")(updates_of(0, n=2)).values.shape == (2,)


def test_the_reason_names_estimator_and_features():
    scores = detect(updates_of(0), estimator=LOF)
    assert scores.reason == "an outlier to LocalOutlierFactor by random projection"
    assert scores.info == {"features": 10}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimator": "sklearn.ensemble.IsolationForrest"}, "cannot be imported, did you mean"),
        ({"estimator": "IsolationForest"}, "did you mean 'sklearn.ensemble.IsolationForest'"),
        ({"estimator": "sklearn.ensemble"}, "cannot be imported|not an outlier detector"),
        ({"estimator": "sklearn"}, "cannot be imported"),
        ({"estimator": "sklearn..svm.OneClassSVM"}, "write the class path"),
        ({"estimator": "sklearn.nowhere.Class"}, "cannot be imported.*No module named 'sklearn.nowhere'"),
        ({"estimator": "sklearn.ensemble.RandomForestClassifier"}, "is not an outlier detector"),
        ({"estimator": "sklearn.base.OutlierMixin"}, "is not an outlier detector"),
        ({"estimator": "sklearn.metrics.accuracy_score"}, "is not an outlier detector"),
        ({"estimator": "os.system"}, "of sklearn or pyod"),
        ({"estimator": "sklearn_evil.Detector"}, "of sklearn or pyod"),
        ({"estimator": ""}, "of sklearn or pyod"),
        ({"estimator_params": {"n_estimator": 3}}, "no parameter 'n_estimator', did you mean 'n_estimators'"),
        ({"estimator_params": {"zzz": 3}}, r"no parameter 'zzz' \(known: n_estimators, max_samples"),
        ({"estimator_params": {"contamination": 0.9}}, "do not suit IsolationForest: .*contamination"),
        ({"estimator": LOF, "estimator_params": {"novelty": True}}, "leave novelty off"),
        ({"features": "all"}, "features"),
        ({"components": 0}, "sklearn: components is 0"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_at_construction(params, message):
    with pytest.raises(ParameterError, match=message):
        make_detector("sklearn", **params)


@pytest.mark.parametrize("path", ["evil_estimator.Detector", "fedguard.evil_estimator.Detector"])
def test_a_suite_cannot_import_other_code(tmp_path, monkeypatch, path):
    (tmp_path / "evil_estimator.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParameterError, match="of sklearn or pyod"):
        make_detector("sklearn", estimator=path)
    assert "evil_estimator" not in sys.modules


def test_the_module_does_not_hide_the_library():
    module = importlib.import_module("fedguard.detectors.sklearn")
    assert module is not sklearn
    assert sklearn.__name__ == "sklearn"
    assert make_detector("sklearn").estimator is IsolationForest


def test_without_pyod_the_message_says_how_to_get_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyod" else found(name))
    with pytest.raises(ParameterError, match=r'needs PyOD.*pip install "fedguard\[pyod\]"'):
        make_detector("sklearn", estimator="pyod.models.ecod.ECOD")


@pytest.fixture
def pyod():
    return pytest.importorskip("pyod")


@pytest.mark.parametrize("kind", ["last_layer", "pca", "statistics"])
@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("ecod.ECOD", {}),
        ("copod.COPOD", {"contamination": 0.2}),
        ("knn.KNN", {"n_neighbors": 4, "method": "mean"}),
        ("iforest.IForest", {"random_state": 7, "n_estimators": 30}),
        ("mcd.MCD", {"random_state": 7, "contamination": 0.3}),
    ],
)
def test_pyods_scores_and_labels_on_features_by_hand(pyod, path, params, kind):
    module, name = path.split(".")
    updates = updates_of(3, outlier=6)
    scores = detect(
        updates, estimator=f"pyod.models.{path}", estimator_params=params, features=kind, components=5
    )
    by_hand = getattr(importlib.import_module(f"pyod.models.{module}"), name)(**params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_hand.fit(features_by_hand(updates, kind))
    np.testing.assert_allclose(scores.values, by_hand.decision_scores_, rtol=1e-4)
    assert scores.suspects.tolist() == (by_hand.labels_ == 1).tolist()
    if kind != "pca":  # where it is far out in one component only, and small in the others
        assert scores.values.argmax() == 6
        assert scores.suspects[6]


def test_pyods_neighbors_are_no_more_than_a_round_has(pyod):
    for params in ({}, {"n_neighbors": 30}):
        scores = detect(
            updates_of(0, n=4), estimator="pyod.models.knn.KNN", estimator_params=params, features="raw"
        )
        assert np.isfinite(scores.values).all()


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        ("ecod.ECODD", None, r"cannot be imported, did you mean 'pyod\.models\.ecod\.ECOD'"),
        ("nowhere.ECOD", None, "cannot be imported.*No module named 'pyod.models.nowhere'"),
        ("base.BaseDetector", None, "is not an outlier detector"),
        ("ecod.ECOD", {"contaminaton": 0.1}, "no parameter 'contaminaton', did you mean 'contamination'"),
        ("ecod.ECOD", {"contamination": 0.9}, "do not suit ECOD: "),
        ("lscp.LSCP", None, "do not suit LSCP: .*detector_list"),
    ],
)
def test_mistakes_with_pyod_are_refused_at_construction(pyod, path, params, message):
    with pytest.raises(ParameterError, match=message):
        make_detector("sklearn", estimator=f"pyod.models.{path}", estimator_params=params)


def test_a_detector_of_pyod_that_does_not_fit_the_round_says_so(pyod):
    """Its parameters depend on each other; fewer clients than it counts on."""
    with pytest.raises(
        DetectorError, match="SOD cannot judge 14 clients by 10 features: ref_set is set to 10"
    ):
        detect(updates_of(0), estimator="pyod.models.sod.SOD")


@pytest.mark.parametrize(("name", "least"), [("abod.ABOD", 4), ("cof.COF", 3)])
def test_what_needs_more_neighbors_says_how_many_clients(name, least):
    pytest.importorskip("pyod")
    detector = make_detector("sklearn", estimator=f"pyod.models.{name}")
    rng = np.random.default_rng(0)
    with pytest.raises(TooFewClientsError, match=f"sklearn needs at least {least} clients"):
        detector(rng.normal(size=(least - 1, 20)))
    assert np.isfinite(detector(rng.normal(size=(least, 20))).values).all()


def test_nobody_is_told_apart_where_nobody_gets_a_finite_score():
    class Nothing(BaseEstimator, OutlierMixin):
        """Gives no number, and calls everybody an outlier."""

        def fit_predict(self, X, y=None):
            return -np.ones(len(X))

        def score_samples(self, X):
            return np.full(len(X), np.nan)

    values, flagged = judge(Nothing, {}, np.random.default_rng(0).normal(size=(5, 3)), 0)
    assert values.tolist() == [0.0] * 5
    assert not flagged.any()
