"""Fang et al.'s logistic regression on MNIST again, from the paper's text in numpy, without FedGuard.

    python benchmarks/papers/fang2020/independent.py DATA rule=krum attack=krum knowledge=partial seed=1

Prints the error rate after every 50 rounds. It is slow, and has only what is needed to see whether a number
is due to FedGuard's code, to a choice that the paper leaves open, or to chance. Settings: see DEFAULTS.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]
D = 7850
DEFAULTS: dict[str, Any] = {
    "rule": "mean",  # mean, krum, trimmed_mean, median, bulyan
    "attack": "none",  # none, gaussian, label_flip, krum, trimmed_mean, median
    "knowledge": "full",  # or partial
    "direction": "rule",  # or mean: what s is taken from with full knowledge
    "otherwise": "honest",  # or smallest: what is sent if no λ works
    "defense": "none",  # err, lfr, union; with rule=krum only
    "ties": "random",  # whom a defense removes of equals: random, or malicious ones first
    "pixels": "standardized",  # or unit: in [0, 1]
    "lr": 0.01, "batch": 32, "rounds": 500, "n": 100, "c": 20, "p": 0.5, "epsilon": 0.01, "seed": 0,
}  # fmt: skip


def images(root: Path, part: str) -> tuple[Floats, NDArray[np.int64]]:
    """(N, 784) pixels in [0, 1] and (N,) labels."""

    def content(name: str) -> bytes:
        path = root / "MNIST" / "raw" / f"{part}-{name}-ubyte"
        return path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())

    pixels = np.frombuffer(content("images-idx3"), np.uint8, offset=16).reshape(-1, 784)
    return pixels.astype(np.float32) / 255, np.frombuffer(content("labels-idx1"), np.uint8, offset=8).astype(
        np.int64
    )


def deal(labels: NDArray[np.int64], n: int, p: float, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """§4.1: label l goes to group l with probability p, else to another; then to any worker of the group."""
    worker = np.empty(len(labels), int)
    for i, label in enumerate(labels):
        group = label if rng.random() < p else rng.choice([g for g in range(10) if g != label])
        worker[i] = group * (n // 10) + rng.integers(n // 10)
    parts = [np.flatnonzero(worker == k) for k in range(n)]
    return [parts[k] for k in rng.permutation(n)]  # the first c are compromised


def distances(updates: Floats) -> Floats:
    """(n, n) squared."""
    x = updates.astype(np.float64)
    table = (x**2).sum(1)[:, None] + (x**2).sum(1)[None] - 2 * x @ x.T
    np.fill_diagonal(table, 0)
    return np.maximum(table, 0)


def krum_scores(table: Floats, f: int) -> Floats:
    """Of every model, the sum over its n − f − 2 nearest others."""
    table = table + np.diag([np.inf] * len(table))
    return np.asarray(np.sort(table, 1)[:, : len(table) - f - 2].sum(1))


def bulyan(updates: Floats, c: int) -> Floats:
    """Krum again and again, then the mean of the values nearest to the median."""
    table, left, chosen = distances(updates), list(range(len(updates))), []
    while len(chosen) < len(updates) - 2 * c:
        part = table[np.ix_(left, left)] + np.diag([np.inf] * len(left))
        chosen.append(left.pop(int(np.sort(part, 1)[:, : max(1, len(left) - c - 2)].sum(1).argmin())))
    picked = updates[chosen]
    order = np.abs(picked - np.median(picked, 0)).argsort(0)[: len(picked) - 2 * c]
    return np.asarray(np.take_along_axis(picked, order, 0).mean(0))


def aggregate(rule: str, updates: Floats, c: int) -> Floats:
    """The rules of §2.2."""
    if rule == "krum":
        return np.asarray(updates[krum_scores(distances(updates), c).argmin()])
    if rule == "trimmed_mean":
        return np.asarray(np.sort(updates, 0)[c : len(updates) - c].mean(0))
    if rule == "bulyan":
        return bulyan(updates, c)
    return np.asarray(np.median(updates, 0) if rule == "median" else updates.mean(0))


def attack_krum(updates: Floats, rng: np.random.Generator, at: dict[str, Any]) -> Floats:
    """§3.2: halve λ from the bound of Theorem 1 until Krum selects w_Re − λs."""
    c, full = at["c"], at["knowledge"] == "full"
    honest = updates[c:] if full else updates[:c]
    rule = "mean" if at["direction"] == "mean" or not full else "krum"
    s = np.where(aggregate(rule, updates if full else honest, c) > 0, 1.0, -1.0)
    lam = 0.0
    for crafted in [c] if full else range(1, c):
        lam = search(honest, s, crafted, at["otherwise"])
        if lam:
            break
    if not lam:
        return updates[:c]
    away = rng.standard_normal((c, D))
    away *= at["epsilon"] * rng.random((c, 1)) ** (1 / D) / np.linalg.norm(away, axis=1, keepdims=True)
    away[0] = 0
    return -lam * s + away


def search(honest: Floats, s: Floats, crafted: int, otherwise: str) -> float:
    """λ, or 0."""
    k, honest = len(honest), honest.astype(np.float64)
    n, own = k + crafted, distances(honest)
    near = np.sort(own + np.diag([np.inf] * k), 1)[:, : min(k - 1, n - crafted - 2)]
    lam = np.sqrt(near.sum(1).min() / (max(1, n - 2 * crafted - 1) * D))
    lam += np.sqrt((honest**2).sum(1).max() / D)
    while lam >= 1e-5:
        table = np.zeros((n, n))
        table[crafted:, crafted:] = own
        table[:crafted, crafted:] = (honest**2).sum(1) + 2 * lam * honest @ s + lam**2 * D
        table[crafted:, :crafted] = table[:crafted, crafted:].T
        scores = krum_scores(table, crafted)
        if scores[0] < scores[crafted:].min():
            return float(lam)
        lam /= 2
    return float(lam) if otherwise == "smallest" else 0.0


def attack_trimmed(updates: Floats, w: Floats, rng: np.random.Generator, at: dict[str, Any]) -> Floats:
    """§3.3 and §3.4, b = 2."""
    c = at["c"]
    if at["knowledge"] == "partial":
        mean, std = updates[:c].mean(0), updates[:c].std(0)
        return mean - np.where(mean > 0, 1, -1) * std * rng.uniform(3, 4, (c, D))
    down = aggregate("mean" if at["direction"] == "mean" else at["attack"], updates, c) > 0
    top, bottom, by = w + updates[c:].max(0), w + updates[c:].min(0), rng.uniform(1, 2, (c, D))
    above, below = np.where(top > 0, top * by, top / by), np.where(bottom > 0, bottom / by, bottom * by)
    return np.where(down, below, above) - w


def crafted(updates: Floats, w: Floats, rng: np.random.Generator, at: dict[str, Any]) -> Floats:
    """What the first c send."""
    if at["attack"] == "krum":
        return attack_krum(updates, rng, at)
    if at["attack"] in ("trimmed_mean", "median"):
        return attack_trimmed(updates, w, rng, at)
    if at["attack"] == "gaussian":
        return updates.mean(0) + updates.std(0) * rng.standard_normal((at["c"], D))
    return updates[: at["c"]]


def measure(w: Floats, x: Floats, y: NDArray[np.int64]) -> tuple[float, float]:
    """Error rate and loss."""
    z = x @ w[:7840].reshape(784, 10) + w[7840:]
    z = z - z.max(1, keepdims=True)
    return float((z.argmax(1) != y).mean()), float(
        (np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]).mean()
    )


def kept(updates: Floats, w: Floats, check: Any, rng: np.random.Generator, at: dict[str, Any]) -> list[int]:
    """§5 for Krum: whom ERR, LFR or their union leave."""
    n, c, table = len(updates), at["c"], distances(updates)
    known: dict[int, Floats] = {}

    def impact_of(members: list[int]) -> Floats:
        chosen = members[int(krum_scores(table[np.ix_(members, members)], c).argmin())]
        if chosen not in known:
            known[chosen] = np.array(measure(w + updates[chosen], *check))
        return known[chosen]

    everybody = list(range(n))
    impacts = np.array(
        [impact_of(everybody) - impact_of([j for j in everybody if j != i]) for i in everybody]
    )
    removed: set[int] = set()
    for k in {"err": [0], "lfr": [1], "union": [0, 1]}[at["defense"]]:
        ties = rng.permutation(n) if at["ties"] == "random" else -np.arange(n)
        removed |= set(np.lexsort((ties, impacts[:, k]))[-c:].tolist())
    return [i for i in everybody if i not in removed]


def trained(w: Floats, x: Floats, y: NDArray[np.int64], n: int, lr: float) -> Floats:
    """(n, D) one step of SGD on each worker's batch."""
    z = x @ w[:7840].reshape(784, 10).astype(np.float32) + w[7840:].astype(np.float32)
    e = np.exp(z - z.max(1, keepdims=True))
    e /= e.sum(1, keepdims=True)
    e[np.arange(len(e)), y] -= 1
    e = e.reshape(n, -1, 10) / (len(x) // n)
    slopes = np.matmul(x.reshape(n, -1, 784).transpose(0, 2, 1), e)
    return np.asarray(-lr * np.concatenate([slopes.reshape(n, -1), e.sum(1)], 1))


def run(root: Path, at: dict[str, Any]) -> list[float]:
    """Error rates after every 50 rounds."""
    rng, n, c = np.random.default_rng(at["seed"]), at["n"], at["c"]
    (x, y), (tx, ty) = images(root, "train"), images(root, "t10k")
    if at["pixels"] == "standardized":
        mean, std = x.mean(), x.std()
        x, tx = (x - mean) / std, (tx - mean) / std
    parts, w = deal(y, n, at["p"], rng), rng.uniform(-1 / 28, 1 / 28, D)
    sample = rng.choice(len(ty), 100, replace=False)
    errors = []
    for index in range(at["rounds"]):
        rows = np.concatenate([rng.choice(part, at["batch"], replace=False) for part in parts])
        labels = y[rows]
        if at["attack"] == "label_flip":
            labels[: c * at["batch"]] = 9 - labels[: c * at["batch"]]
        updates = trained(w, x[rows], labels, n, at["lr"])
        updates = np.concatenate([crafted(updates, w, rng, at), updates[c:]]).astype(np.float32)
        if at["defense"] != "none":
            updates = updates[kept(updates, w, (tx[sample], ty[sample]), rng, at)]
        w = w + aggregate(at["rule"], updates, c)
        if (index + 1) % 50 == 0:
            errors.append(measure(w, tx, ty)[0])
    return errors


def main() -> None:
    """Read the settings and run."""
    at = dict(DEFAULTS)
    for word in sys.argv[2:]:
        key, value = word.split("=")
        at[key] = type(DEFAULTS[key])(value)
    print(*sys.argv[2:], "|", *(f"{error:.3f}" for error in run(Path(sys.argv[1]), at)), flush=True)


if __name__ == "__main__":
    main()
