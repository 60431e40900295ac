"""ERR and LFR: aggregating without each client in turn, against 2n plain aggregations.

    python benchmarks/speed_leave_one_out.py [--quick]

100 clients send gradient steps of a CNN with 139,960 parameters on scikit-learn's digits (blown up to
28×28); 20 send the opposite. The plain side aggregates the others anew for every client, once for ERR and
once for LFR; it is timed on 5 clients. Which clients are removed is compared over all.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import numpy as np
import torch
from bench import Row, compare, show
from sklearn.datasets import load_digits

from fedguard import Aggregator, LabeledData, Round, Server, make_aggregator, make_detector
from fedguard.aggregators._leave_one_out import leave_one_out
from fedguard.simulation.models import build_model
from fedguard.training.parameters import error_and_loss, flat_parameters, load_parameters

N, F, TIMED = 100, 20, 5


def rows(quick: bool) -> list[Row]:
    round_ = digits_round(30 if quick else 100)
    return [row(round_, name, aggregator, plain) for name, (aggregator, plain) in RULES.items()]


def row(round_: Round, name: str, aggregator: Aggregator, plain: Callable[..., np.ndarray]) -> Row:
    X, counts = round_.updates.matrix.numpy(), round_.num_examples
    round_ = round_.with_server(aggregator=aggregator)

    def theirs() -> None:
        for i in range(TIMED):
            plain(np.delete(X, i, axis=0), np.delete(counts, i))

    def agree(*_: object) -> str:
        ours = [make_detector(d, num_malicious=F)(round_).suspects for d in ("err", "lfr")]
        return (
            "same removals" if np.array_equal(ours, plain_removals(round_, plain)) else "DIFFERENT removals"
        )

    return compare(
        f"ERR + LFR over {name}, n = {N}, d = {X.shape[1]:,}: aggregation",
        "2n aggregations (NumPy)",
        50.0,
        lambda: [update.sum() for update in leave_one_out(aggregator, round_.with_updates(X))],
        theirs,
        agree,
        scale=2 * N / TIMED,
    )


@functools.cache
def digits_round(samples: int) -> Round:
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    images = torch.nn.functional.interpolate(images, size=(28, 28), mode="bilinear")
    labels = torch.tensor(labels)
    draw = torch.Generator().manual_seed(0)
    model = build_model("fedredefense_fmnist_cnn", (1, 28, 28), 10, draw)
    start = flat_parameters(model)
    updates = torch.stack([gradient(model, start, images, labels, client, draw) for client in range(N)])
    server = Server(model=model, validation=LabeledData(images[-samples:], labels[-samples:]))
    counts = np.random.default_rng(0).integers(10, 60, N)
    return Round(updates, num_examples=counts, global_params=start, server=server)


def gradient(
    model: torch.nn.Module,
    start: torch.Tensor,
    images: torch.Tensor,
    labels: torch.Tensor,
    client: int,
    draw: torch.Generator,
) -> torch.Tensor:
    """−1 times a gradient on 15 samples; the first 20 clients send it with the other sign, twice as long."""
    load_parameters(model, start)
    some = torch.randint(len(images) - 100, (15,), generator=draw)
    loss = torch.nn.functional.cross_entropy(model(images[some]), labels[some])
    step = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    return step if client < F else -0.5 * step


def plain_removals(round_: Round, plain: Callable[..., np.ndarray]) -> list[np.ndarray]:
    """Whom ERR and LFR remove, from n + 1 plain aggregations."""
    X, counts, server = round_.updates.matrix.numpy(), round_.num_examples, round_.server
    found = []
    for others in [np.arange(N), *(np.delete(np.arange(N), i) for i in range(N))]:
        update = torch.from_numpy(plain(X[others], counts[others])).float()
        found.append(error_and_loss(server.model, round_.global_params + update, server.validation))
    impacts = [np.array([found[0][k] - other[k] for other in found[1:]]) for k in (0, 1)]
    removed = []
    for impact in impacts:
        mask = np.zeros(N, dtype=bool)
        mask[np.argsort(impact, kind="stable")[N - F :]] = True
        removed.append(mask)
    return removed


def plain_mean(X: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return (counts / counts.sum()) @ X.astype(np.float64)


def plain_median(X: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.median(X, axis=0)


def plain_trimmed_mean(X: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.sort(X, axis=0)[F:-F].mean(0, dtype=np.float64)


def plain_krum(X: np.ndarray, counts: np.ndarray) -> np.ndarray:
    centerd = X - X.mean(0, dtype=np.float64)
    products = centerd @ centerd.T
    squares = products.diagonal()
    distances = squares[:, None] + squares[None, :] - 2 * products
    np.fill_diagonal(distances, np.inf)
    return X[np.sort(distances, axis=1)[:, : len(X) - F - 2].sum(1).argmin()]


RULES = {
    "trimmed mean": (make_aggregator("trimmed_mean", num_malicious=F), plain_trimmed_mean),
    "median": (make_aggregator("median"), plain_median),
    "Krum": (make_aggregator("krum", num_malicious=F), plain_krum),
    "mean": (make_aggregator("mean"), plain_mean),
}


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
