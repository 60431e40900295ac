"""Work by column blocks: the same bits for any number of threads, and leave-one-out as by hand."""

import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from fedguard import Round, Updates, make_aggregator
from fedguard.aggregators._leave_one_out import leave_one_out, shares_work
from fedguard.aggregators.krum import krum_scores
from fedguard.aggregators.trimmed_mean import TrimmedMean
from fedguard.geometry.blocks import MALLOC_BYTES, in_order

RULES = ("mean", "median", "trimmed_mean", "geometric_median", "krum", "bulyan")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("fedguard.geometry.blocks.BLOCK_BYTES", 1)
    monkeypatch.setattr("fedguard.geometry.blocks.MIN_WIDTH", 7)


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


def normal(n, d, seed=0):
    return (5 + np.random.default_rng(seed).normal(size=(n, d))).astype(np.float32)


def everything(X):
    u = Updates(X)
    found = {
        name: getattr(u, name)
        for name in ("norms", "mean", "centered_gram", "inner_products", "sq_distances", "cosines")
    }
    found["along"], found["distances"] = u.along(u.mean), u.distances_to(u.mean)
    found.update({rule: make_aggregator(rule)(Round(X)) for rule in RULES})
    return found


@pytest.mark.parametrize("tile", [4, 1024])
def test_the_number_of_threads_does_not_show(small_blocks, monkeypatch, threads, tile):
    monkeypatch.setattr("fedguard.geometry.gram.TILE", tile)
    monkeypatch.setattr("fedguard.aggregators.krum.ROWS", tile)
    monkeypatch.setattr("fedguard.aggregators.geometric_median.MANY", tile)
    X = normal(11, 300)
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(everything(X))
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name
        assert torch.equal(value, results[2][name]), name


@pytest.mark.parametrize("tile", [1, 3, 4, 9])
def test_tiles_of_the_gram_matrix(small_blocks, monkeypatch, tile):
    monkeypatch.setattr("fedguard.geometry.gram.TILE", tile)
    X = normal(9, 50)
    X[4] = X[2]
    X[5] = X[2] * np.float32(1 + 1e-6)
    u, wide = Updates(X), X.astype(np.float64)
    centerd, about = wide - wide.mean(0), wide - wide[6]
    np.testing.assert_allclose(u.centered_gram, centerd @ centerd.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(u.inner_products, wide @ wide.T, rtol=1e-13)
    np.testing.assert_allclose(u.gram_about(6), about @ about.T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(u.sq_distances, ((wide[:, None] - wide) ** 2).sum(2), rtol=1e-9)
    assert torch.equal(u.centered_gram, u.centered_gram.T)


@pytest.mark.parametrize(("name", "gram"), [("sq_distances", "centered_gram"), ("cosines", "inner_products")])
def test_a_table_may_take_the_memory_of_its_gram_matrix(small_blocks, monkeypatch, name, gram):
    monkeypatch.setattr("fedguard.geometry.gram.TILE", 4)
    monkeypatch.setattr("fedguard.geometry.tables.ROWS", 2)
    X = normal(9, 50)
    X[4], X[7] = X[2], 0
    X[5] = X[2] * np.float32(1 + 1e-6)
    kept, alone = Updates(X), Updates(X)
    before = getattr(kept, gram).clone()
    assert torch.equal(getattr(kept, name), getattr(alone, name))
    assert gram not in vars(alone), "its memory holds the table"
    assert torch.equal(getattr(kept, gram), before)
    assert torch.equal(getattr(alone, gram), before)


@pytest.mark.parametrize("tile", [1, 4, 9])
def test_krum_scores_a_few_rows_at_a_time(monkeypatch, tile):
    monkeypatch.setattr("fedguard.aggregators.krum.ROWS", tile)
    distances = Updates(normal(9, 20)).sq_distances
    table = distances.numpy()
    expected = [np.sort(np.delete(table[i], i))[:5].sum() for i in range(9)]
    np.testing.assert_allclose(krum_scores(distances, 2), expected, rtol=1e-12)


def test_taking_clients_copies_nothing(small_blocks):
    X = normal(8, 40)
    mask = np.array([True, False, True, True, True, True, True, True])
    part = Updates(X).take(mask).take([5, 1, 0, 3])
    kept = X[[6, 2, 0, 4]]
    wide, v = kept.astype(np.float64), np.arange(40.0)
    np.testing.assert_allclose(part.along(torch.from_numpy(v)), wide @ v, rtol=1e-13)
    np.testing.assert_allclose(
        part.distances_to(torch.from_numpy(v)), np.linalg.norm(wide - v, axis=1), rtol=1e-13
    )
    np.testing.assert_allclose(part.weighted_sum(np.array([1.0, 2, 3, 4])), [1, 2, 3, 4] @ wide, rtol=1e-13)
    np.testing.assert_allclose(part.norms, np.linalg.norm(wide, axis=1), rtol=1e-13)
    np.testing.assert_allclose(torch.cat(list(part.blocks()), 1), wide, rtol=0)
    assert part.row(1).tolist() == kept[1].tolist()
    assert part.columns(torch.tensor([3, 39])).tolist() == kept[:, [3, 39]].tolist()
    for rule in ("mean", "median", "trimmed_mean", "geometric_median", "krum"):
        make_aggregator(rule)(Round(part))
    assert "matrix" not in vars(part)
    assert part.matrix.tolist() == kept.tolist()


def test_a_row_is_a_copy():
    X = normal(3, 4)
    updates = Updates(X)
    updates.row(1).zero_()
    assert updates.row(1).all()


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_under_one_blas_thread(threads, count):
    threads(count)
    seen, blas, gate = [], [], threading.Lock()

    def work(item):
        with gate:
            seen.append(item)
            blas.extend(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")
        return item * item

    with threadpool_limits(limits=3, user_api="blas"):
        found = in_order(work, range(40))
        assert next(found) == 0
        assert len(seen) <= 1 + 2 * count, "results wait to be taken"
        assert list(found) == [i * i for i in range(1, 40)]
    assert sorted(seen) == list(range(40))
    assert set(blas) == {1}


def test_what_goes_wrong_in_a_thread_comes_out(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // (i - 3), range(6)))


def test_whoever_sends_infinity_gets_no_warning(threads, recwarn):
    X = normal(4, 30)
    X[1] = np.inf
    for count in (1, 2):
        threads(count)
        updates = Updates(X)
        assert updates.finite.tolist() == [True, False, True, True]
        _ = updates.centered_gram
    assert not recwarn.list


@pytest.mark.parametrize("known", [[], ["norms"]])
def test_the_largest_floats_are_finite(known):
    X = np.full((4, 1000), np.finfo(np.float32).max)
    X[1, 500] = np.inf
    X[2, 999] = np.nan
    updates = Updates(X)
    for name in known:
        getattr(updates, name)
    assert updates.finite.tolist() == [True, False, False, True]
    assert ("norms" in vars(updates)) == bool(known)


# --- order statistics and leave-one-out, by hand


@st.composite
def rounds(draw):
    """Ties, zeros, near copies and values up to the largest float32; few columns per block."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(2, 9)), draw(st.integers(1, 25))
    X = rng.normal(size=(n, d)) if draw(st.booleans()) else rng.integers(-2, 3, (n, d)).astype(float)
    for i in range(n):
        kind = draw(st.sampled_from(["own", "own", "own", "copy", "huge", "zero"]))
        if kind == "copy":
            X[i] = X[0]
        elif kind == "huge":
            X[i] = rng.choice([-3e38, 3e38, 1e30], d)
        elif kind == "zero":
            X[i] = 0
    return X.astype(np.float32), rng.integers(1, 100, n).astype(float)


def exact_middle(X, beta):
    """Mean of the middle values by exact fractions, rounded once to float32."""
    from fractions import Fraction

    columns = [sorted(Fraction(float(v)) for v in column)[beta : len(X) - beta] for column in X.T]
    return np.array([float(sum(c) / len(c)) for c in columns]).astype(np.float32)


def close_to(found, expected, X):
    """Within an ulp of float32, or the rounding of float64 at the size of what was summed."""
    slack = np.abs(expected) * 2.0**-23 + np.abs(X.astype(np.float64)).max(0) * 2.0**-50 + 1e-300
    assert (np.abs(np.asarray(found, dtype=np.float64) - expected) <= slack).all()


@given(rounds(), st.integers(0, 4))
def test_order_statistics_by_exact_fractions(case, beta):
    X, _ = case
    beta = min(beta, (len(X) - 1) // 2)
    close_to(make_aggregator("trimmed_mean", num_malicious=beta)(X), exact_middle(X, beta), X)
    close_to(make_aggregator("median")(X), exact_middle(X, (len(X) - 1) // 2), X)


@given(rounds(), st.integers(0, 4))
def test_leave_one_out_of_order_statistics(case, beta):
    X, _ = case
    n = len(X)
    beta = min(beta, (n - 2) // 2)
    cut = list(leave_one_out(make_aggregator("trimmed_mean", num_malicious=beta), Round(X)))
    most = list(leave_one_out(make_aggregator("trimmed_mean"), Round(X)))
    median = list(leave_one_out(make_aggregator("median"), Round(X)))
    assert len(cut) == len(most) == len(median) == n
    for i in range(n):
        others = np.delete(X, i, axis=0)
        kept = np.sort(others, axis=0)[beta : len(others) - beta]
        close_to(cut[i], exact_middle(others, beta), kept)
        middle = exact_middle(others, (len(others) - 1) // 2)
        kept = np.sort(others, axis=0)[(len(others) - 1) // 2 : len(others) // 2 + 1]
        close_to(median[i], middle, kept)
        close_to(most[i], middle, kept)


@given(rounds(), st.booleans())
def test_leave_one_out_of_the_mean(case, examples):
    X, counts = case
    rule = make_aggregator("mean", weighting="examples" if examples else "uniform")
    for i, found in enumerate(leave_one_out(rule, Round(X, num_examples=counts))):
        others, share = np.delete(X, i, axis=0), np.delete(counts, i) if examples else None
        close_to(found, np.average(others.astype(np.longdouble), axis=0, weights=share), others)


@pytest.mark.parametrize(
    ("n", "f"), [(n, f) for n in (4, 5, 8) for f in (0, 1, 2, None) if f is None or n > f + 3]
)
def test_leave_one_out_of_krum(n, f):
    X = normal(n, 6, n)
    X[1] = X[0]
    for i, found in enumerate(leave_one_out(make_aggregator("krum", num_malicious=f), Round(X))):
        others = np.delete(X, i, axis=0).astype(np.float64)
        assumed = max(0, (n - 1 - 3) // 2) if f is None else f
        totals = [
            sum(sorted(((x - y) ** 2).sum() for j, y in enumerate(others) if j != k)[: n - 1 - assumed - 2])
            for k, x in enumerate(others)
        ]
        assert found.tolist() == others[int(np.argmin(np.round(totals, 9)))].tolist()


def test_leaving_one_out_of_all_at_once_or_a_few_at_a_time(monkeypatch):
    round_ = Round(normal(9, 10), num_examples=np.arange(1, 10))
    rule = make_aggregator("mean")
    whole = list(leave_one_out(rule, round_))
    monkeypatch.setattr("fedguard.aggregators._leave_one_out.TOGETHER", 4 * 10 * 2)
    for a, b in itertools.zip_longest(whole, leave_one_out(rule, round_)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


class Halved(TrimmedMean):
    """Aggregates in its own way."""

    def aggregate(self, round, weights):
        return super().aggregate(round, weights) / 2


@pytest.mark.parametrize("rule", [Halved(1), make_aggregator("slsgd", num_malicious=1, alpha=0.5)])
def test_a_derived_rule_is_not_taken_for_its_parent(rule):
    assert not shares_work(rule)
    X = normal(6, 5)
    for i, found in enumerate(leave_one_out(rule, Round(X))):
        expected = make_aggregator("trimmed_mean", num_malicious=1)(np.delete(X, i, axis=0)) / 2
        torch.testing.assert_close(found, expected)


def test_unusable_updates_stay_out():
    X = normal(6, 5)
    X[2, 3] = np.nan
    good = np.delete(X, 2, axis=0)
    found = list(leave_one_out(make_aggregator("median"), Round(X)))
    np.testing.assert_allclose(found[2], np.median(good, axis=0), rtol=1e-6)
    np.testing.assert_allclose(found[0], np.median(good[1:], axis=0), rtol=1e-6)


def test_one_client_alone_leaves_zeros():
    assert [u.tolist() for u in leave_one_out(make_aggregator("median"), Round([[1.0, 2.0]]))] == [[0, 0]]


@pytest.mark.parametrize("tile", [4, 1024])
def test_tensors_instead_of_arrays(monkeypatch, tile):
    """The way of a GPU, gone on the CPU."""
    monkeypatch.setattr("fedguard.geometry.gram.TILE", tile)
    monkeypatch.setattr("fedguard.geometry.blocks.MIN_WIDTH", 7)
    monkeypatch.setattr("fedguard.geometry.blocks.GPU_BLOCK_BYTES", 1)
    X = normal(11, 60)
    X[3] = 1e20
    names = ("mean", "median", "trimmed_mean", "krum")
    here = everything(X)
    without = {name: list(leave_one_out(make_aggregator(name), Round(X))) for name in names}
    part = make_aggregator("bulyan")(Round(Updates(X).take(range(1, 11))))
    monkeypatch.setattr(Updates, "_gpu", True)
    assert isinstance(Updates(X).block(0, 5), torch.Tensor)
    for name, value in everything(X).items():
        torch.testing.assert_close(value, here[name], rtol=1e-6, atol=1e-9 * float(here[name].abs().max()))
    for name, values in without.items():
        for a, b in zip(leave_one_out(make_aggregator(name), Round(X)), values, strict=True):
            torch.testing.assert_close(a, b)
    torch.testing.assert_close(make_aggregator("bulyan")(Round(Updates(X).take(range(1, 11)))), part)


def test_only_the_first_loop_over_blocks_configures_malloc_and_only_on_linux():
    code = (
        "import tracemalloc, torch, fedguard.core.threads\n"
        "tracemalloc.start()\n"
        "from fedguard.geometry.blocks import in_order\n"
        "for n in range(3):\n"
        "    print(tracemalloc.get_traced_memory()[1])\n"
        "    tracemalloc.reset_peak()\n"
        "    list(in_order(abs, [1, 2]))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, first, second = map(int, result.stdout.split())
    assert imported < MALLOC_BYTES > second
    assert (first >= MALLOC_BYTES) == (sys.platform == "linux")
