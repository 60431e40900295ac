"""Methods on updates that stay on disk: the scores and aggregates of updates in memory."""

import inspect

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedguard import Round, Server, StreamedUpdates, make_aggregator, make_detector, make_stage
from fedguard.contracts.registry import aggregators, detectors
from fedguard.core.errors import StreamedError

N, D = 15, 600
#: FoolsGold's histories are as large as all updates, unless it keeps sketches.
REFUSED = {"foolsgold", "irls"}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(N, D, generator=draw) + 2 * torch.randn(D, generator=draw)
    matrix[:3] *= -3
    folder = tmp_path_factory.mktemp("streamed")
    for i, row in enumerate(matrix):
        save_file({"weight": row}, folder / f"{i}.safetensors")
    streamed = StreamedUpdates([folder / f"{i}.safetensors" for i in range(N)])
    return [Round(updates, index=0, server=Server()) for updates in (matrix, streamed)]


def methods(registry, make):
    """Every method that needs neither a model nor data."""
    for name in registry.names():
        known = "num_malicious" in inspect.signature(registry.get(name)).parameters
        params = {"num_malicious": 3} if known else {}
        if not make(name, **params).needs:
            yield name, make(name, **params), make(name, **params)


def compare(found, expected, name):
    """Scores and suspects of detectors, vectors of aggregators."""
    if isinstance(found, torch.Tensor):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7, msg=name)
        return
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-9, atol=1e-9, err_msg=name)
    assert np.array_equal(found.suspects, expected.suspects), name


@pytest.mark.parametrize(
    ("registry", "make"),
    [(detectors, make_detector), (aggregators, make_aggregator)],
    ids=["detectors", "aggregators"],
)
def test_the_same_from_disk_or_refused(rounds, registry, make):
    refused = set()
    for name, here, there in methods(registry, make):
        expected = here(rounds[0])
        try:
            found = there(rounds[1])
        except StreamedError:
            refused.add(name)
        else:
            compare(found, expected, name)
    assert refused == REFUSED & set(registry.names())


def test_shortened_updates(rounds):
    weights = np.ones(N)
    expected, found = (make_stage("norm_clipping").before(round, weights)[0].updates for round in rounds)
    assert found.norms.max() < rounds[0].updates.norms.max()
    assert torch.equal(found.norms, expected.norms)
    assert torch.equal(found.columns(torch.tensor([5, 2])), expected.columns(torch.tensor([5, 2])))
    part = found.take([0, 4])
    assert torch.equal(part.row(0), expected.row(0))
    assert torch.equal(part.sq_distances, expected.take([0, 4]).sq_distances)
    assert torch.equal(torch.as_tensor(part.between(slice(590, None)).matrix), expected.matrix[[0, 4], 590:])
    with pytest.raises(StreamedError, match="streamed from disk"):
        _ = part.matrix
