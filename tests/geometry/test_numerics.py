"""Numbers of any type and scale: agreement with NumPy in float64, to the tolerances stated here.

Updates are kept as float32 and summed in float64. So what is computed of float16, bfloat16 and float32 input
agrees with float64 up to float64's own rounding, and float64 input up to the rounding to float32 at the door.
"""

import numpy as np
import pytest
import torch

from fedguard import LabeledData, Round, Server, make_aggregator, make_detector, make_stage
from fedguard.aggregators.krum import multi_krum
from fedguard.contracts.local_training import LocalTraining
from fedguard.geometry.updates import Updates

#: Of inner products and norms, relative to the lengths of both updates.
PRODUCTS = 1e-13
#: Of squared distances, relative to each of them.
DISTANCES = 1e-7
#: Of aggregates, relative to the largest entry: they are returned as float32.
AGGREGATES = 2.0**-23
#: float64 input is rounded to float32 first.
ROUNDED = 2.0**-24

SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]
TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def given(dtype, scale, n=7, d=40, seed=0):
    """(n, d) numbers as they arrive; the oracle gets the very same numbers as float64."""
    x = scale * (1 + np.random.default_rng(seed).normal(size=(n, d)))
    if dtype == torch.float16:  # reaches from 6e-8 to 65504 only
        x = np.clip(x, -6e4, 6e4)
    return torch.tensor(x).to(dtype)


CASES = [
    pytest.param(dtype, scale, id=f"{str(dtype).removeprefix('torch.')}-{scale:g}")
    for dtype in TYPES
    for scale in SCALES
    if dtype != torch.float16 or 1e-5 < scale < 1e5
]


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_geometry_of_every_type_and_scale(dtype, scale):
    x = given(dtype, scale)
    found, exact = Updates(x), x.double().numpy()
    slack = 4 * ROUNDED if dtype == torch.float64 else 0.0
    lengths = np.sqrt((exact**2).sum(1))
    both = np.outer(lengths, lengths)
    np.testing.assert_allclose(found.norms, lengths, rtol=PRODUCTS + slack)
    inner = (exact @ exact.T) / both
    np.testing.assert_allclose(found.inner_products.numpy() / both, inner, rtol=0, atol=PRODUCTS + slack)
    np.testing.assert_allclose(found.cosines.numpy(), inner, rtol=0, atol=PRODUCTS + slack)
    largest = np.abs(exact).max()
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=0, atol=(PRODUCTS + slack) * largest)
    centerd = exact - exact.mean(0)
    np.testing.assert_allclose(
        found.centered_gram.numpy() / both, (centerd @ centerd.T) / both, rtol=0, atol=4 * (PRODUCTS + slack)
    )
    squares = np.array([[((a - b) ** 2).sum() for b in exact] for a in exact])
    np.testing.assert_allclose(found.sq_distances, squares, rtol=DISTANCES + 8 * slack)
    assert found.finite.all()


def mean(x):
    return x.mean(0)


def trimmed(x):
    return np.sort(x, 0)[2:-2].mean(0)


def geometric_median(x):
    v = x.mean(0)
    for _ in range(3000):
        w = 1 / np.maximum(np.sqrt(((x - v) ** 2).sum(1)), 1e-300)
        v = (w[:, None] * x).sum(0) / w.sum()
    return v


@pytest.mark.parametrize(
    ("name", "params", "oracle"),
    [
        ("mean", {}, mean),
        ("median", {}, lambda x: np.median(x, 0)),
        ("trimmed_mean", {"num_malicious": 2}, trimmed),
        ("geometric_median", {"smoothing": 1e-30}, geometric_median),
    ],
)
@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_aggregates_of_every_type_and_scale(name, params, oracle, dtype, scale):
    x = given(dtype, scale, seed=1)
    exact = oracle(x.double().numpy())
    found = make_aggregator(name, **params)(Round(x)).double().numpy()
    slack = 4 * AGGREGATES if name == "geometric_median" else AGGREGATES
    np.testing.assert_allclose(found, exact, rtol=0, atol=slack * np.abs(x.double().numpy()).max())


#: Scores that do not change when everything grows by the same factor, and those that grow with a power of it.
POWERS = {
    "krum": 2,
    "dnc": 0,
    "foolsgold": 0,
    "afa": 0,
    "norm_bound": 0,
    "signguard": 0,
    "rflbat": 0,
    "freqfed": 0,
    "three_sigma": 1,
    "sklearn": 0,
    "flame": 0,
    "multi_metric": 0,
    "cross_round": 0,
}
SHAPE = {"three_sigma": {"sigmas": 1.5}}


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**40], ids=["1e-12", "1e12"])
@pytest.mark.parametrize("name", POWERS)
def test_detectors_see_the_same_at_every_scale(name, factor):
    """2⁻⁴⁰ and 2⁴⁰ times the updates and the model, exactly: the same order, the same suspects."""
    rng = np.random.default_rng(2)
    x = (rng.normal(size=30) + 0.3 * rng.normal(size=(14, 30))).astype(np.float32)
    x[[3, 8]] *= -4
    start = rng.normal(size=30).astype(np.float32)
    said = []
    for scale in (1.0, factor):
        detector = make_detector(name, **SHAPE.get(name, {}))
        for index in range(2):
            part = Round(
                x * np.float32(scale * (1 + index)), index=index, global_params=start * np.float32(scale)
            )
            scores = detector(part)
            detector.commit(part, scores)
        said.append(scores)
    one, other = said
    np.testing.assert_allclose(other.values, one.values * factor ** POWERS[name], rtol=1e-6)
    if one.suspects is not None:
        assert one.suspects.tolist() == other.suspects.tolist()
        assert one.suspects.any() or name in ("cross_round", "foolsgold")


# --- near-duplicate colluders

N, F, D = 20, 6, 60


def colluders(seed=0):
    """Six that differ by a thousandth, among honest updates that differ by one."""
    rng = np.random.default_rng(seed)
    common = 10 * rng.normal(size=D)
    x = common + rng.normal(size=(N, D))
    lead = common + 1.5 * rng.normal(size=D)
    x[:F] = lead + 1e-3 * rng.normal(size=(F, D))
    order = rng.permutation(N)
    return x[order].astype(np.float32), np.flatnonzero(order < F)


def exact_squares(x):
    wide = x.astype(np.longdouble)
    return np.array([[((a - b) ** 2).sum() for b in wide] for a in wide])


def krum_by_hand(squares, f, among):
    sums = {i: sorted(squares[i, j] for j in among if j != i)[: len(among) - f - 2] for i in among}
    return {i: sum(part) for i, part in sums.items()}


@pytest.mark.parametrize("seed", range(4))
def test_distances_of_near_duplicates_keep_their_digits(seed):
    x, bad = colluders(seed)
    found, exact = Updates(x).sq_distances.numpy(), exact_squares(x)
    np.testing.assert_allclose(found, exact.astype(float), rtol=DISTANCES)
    near = found[np.ix_(bad, bad)][~np.eye(F, dtype=bool)]
    honest = [i for i in range(N) if i not in bad]
    assert near.max() < 1e-5 * found[np.ix_(honest, honest)][~np.eye(N - F, dtype=bool)].min()
    for i in bad:
        assert np.argsort(found[i])[1:F].tolist() == np.argsort(exact[i])[1:F].tolist(), "the same neighbors"


@pytest.mark.parametrize("seed", range(4))
def test_krum_ranks_near_duplicates_as_exact_arithmetic_does(seed):
    x, _ = colluders(seed)
    squares = exact_squares(x)
    for f in (F, N - F):  # with f = 14, four neighbors: colluders have the lowest scores by far
        exact = krum_by_hand(squares, f, range(N))
        found = make_detector("krum", num_malicious=f)(x).values
        np.testing.assert_allclose(found, [float(exact[i]) for i in range(N)], rtol=DISTANCES)
        assert np.argsort(found).tolist() == sorted(range(N), key=exact.get)
        chosen = make_aggregator("krum", num_malicious=f)(x)
        assert torch.equal(chosen, torch.from_numpy(x[min(exact, key=exact.get)]))


@pytest.mark.parametrize("seed", range(4))
def test_multi_krum_bulyan_and_mixing_choose_as_exact_arithmetic_does(seed):
    x, bad = colluders(seed)
    squares, f = exact_squares(x), 4
    remaining, exact = list(range(N)), []
    while len(exact) < N - 2 * f:
        scores = krum_by_hand(squares, f, remaining)
        exact.append(min(remaining, key=scores.get))
        remaining.remove(exact[-1])
    assert multi_krum(Updates(x).sq_distances, f, N - 2 * f) == exact
    mixed = make_stage("nearest_neighbor_mixing", num_malicious=N - F).before(Round(x), np.ones(N))[0]
    for i in range(N):
        nearest = np.argsort(squares[i])[:F]
        expected = x[nearest].astype(float).mean(0)
        np.testing.assert_allclose(mixed.updates.matrix[i], expected, rtol=1e-6, atol=1e-6)
        assert (i not in bad) or set(nearest) == set(bad)


@pytest.mark.parametrize("seed", range(4))
def test_methods_that_look_for_likeness_find_near_duplicates(seed):
    x, bad = colluders(seed)
    scattered = x - x.mean(0)  # as at a flat place: no common direction
    assert set(np.flatnonzero(make_detector("foolsgold")(scattered).suspects)) == set(bad)
    lof = make_detector(
        "sklearn",
        estimator="sklearn.neighbors.LocalOutlierFactor",
        features="raw",
        estimator_params={"n_neighbors": 8},
    )(x).values
    assert np.isfinite(lof).all()
    assert len(set(np.argsort(lof)[-F:]) & set(bad)) in (0, F), "all of them or none"


@pytest.mark.parametrize(
    "name", ["rflbat", "flame", "afa", "dnc", "signguard", "multi_metric", "three_sigma", "freqfed"]
)
def test_near_duplicates_are_ranked_next_to_each_other(name):
    """No method tells them apart by more than they differ, relative to how honest clients differ."""
    x, bad = colluders()
    params = {"signguard": {"similarity": "distance", "fraction": 1.0}, "three_sigma": {"center": "krum"}}
    start = np.random.default_rng(9).normal(size=D)
    values = make_detector(name, **params.get(name, {}))(Round(x, global_params=start)).values
    honest = np.delete(values, bad)
    if name == "signguard" or np.ptp(honest) == 0:
        assert np.ptp(values[bad]) <= 1e-2 * max(1.0, np.ptp(values))
    else:
        assert np.ptp(values[bad]) <= 2e-2 * np.ptp(honest)


# --- cancellation in a million parameters

LARGE, FEW = 10**6, 6


@pytest.fixture(scope="module")
def large():
    """Updates that agree in their first five digits: what matters is what they differ by."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=LARGE).astype(np.float32)
    x = common + (1e-5 * np.arange(1, FEW + 1)[:, None] * rng.normal(size=(FEW, LARGE))).astype(np.float32)
    return x, Updates(x)


def squares_of(x):
    return np.array([[((a.astype(float) - b) ** 2).sum() for b in x] for a in x])


def test_distances_in_a_million_parameters(large):
    x, found = large
    exact = squares_of(x)
    np.testing.assert_allclose(found.sq_distances, exact, rtol=DISTANCES)
    lengths = (x**2).sum(1)
    textbook = lengths[:, None] + lengths - 2 * (x @ x.T)  # float32, as written in many a place
    apart = ~np.eye(FEW, dtype=bool)
    assert (np.abs(textbook - exact)[apart] > exact[apart]).mean() > 0.3, "the trap is one"


def test_krum_in_a_million_parameters(large):
    x, found = large
    squares = squares_of(x)
    exact = krum_by_hand(squares, 1, range(FEW))
    values = make_detector("krum", num_malicious=1)(Round(found)).values
    np.testing.assert_allclose(values, [exact[i] for i in range(FEW)], rtol=DISTANCES)
    assert np.argsort(values).tolist() == sorted(range(FEW), key=exact.get)


def test_angles_of_models_in_a_million_parameters(large):
    """1 − cos of models that differ in the fifth digit is 1e-10: far below what inner products keep."""
    from fedguard.detectors.flame import model_cosine_distances

    x, found = large
    start = np.random.default_rng(4).normal(size=LARGE).astype(np.float32)
    models = x.astype(np.longdouble) + start
    models /= np.sqrt((models**2).sum(1, keepdims=True))
    exact = np.array([[float(((a - b) ** 2).sum() / 2) for b in models] for a in models])
    distances = model_cosine_distances(Round(found, global_params=start))
    np.testing.assert_allclose(distances, exact, rtol=1e-4)
    assert exact[0, 1] < 1e-9


def test_sums_of_a_million_parameters(large):
    x, found = large
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(found.norms, np.sqrt((wide**2).sum(1)).astype(float), rtol=PRODUCTS)
    np.testing.assert_allclose(found.inner_products, (wide @ wide.T).astype(float), rtol=1e-12)
    aggregate = make_aggregator("mean")(Round(found)).numpy()
    np.testing.assert_allclose(
        aggregate, wide.mean(0).astype(float), rtol=0, atol=AGGREGATES * np.abs(x).max()
    )


def test_projections_in_a_million_parameters(large):
    """DnC on all coordinates: the direction in which the updates differ, not the one they share."""
    x, found = large
    centerd = x.astype(float) - x.astype(float).mean(0)
    gram = centerd @ centerd.T
    vector = np.linalg.eigh(gram)[1][:, -1]
    shares = vector**2 / (vector**2).max()
    values = make_detector("dnc", num_malicious=2, coordinates=LARGE)(Round(found)).values
    assert np.argsort(values).tolist() == np.argsort(shares).tolist()


def test_trust_at_small_scales():
    """FLTrust: cosines with a root update of length 1e-9 are cosines still."""
    model = torch.nn.Linear(4, 3)
    root = LabeledData(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    said = []
    for lr in (1.0, 1e-9):
        training = LocalTraining(epochs=None, steps=1, batch_size=12, lr=lr)
        server = Server(model=model, root=root, training=training)
        x = np.random.default_rng(1).normal(size=(6, 15)).astype(np.float32) * np.float32(lr)
        said.append(make_detector("fltrust")(Round(x, global_params=np.zeros(15), server=server)).values)
    np.testing.assert_allclose(said[1], said[0], rtol=1e-4)
