"""BatchNorm in a simulation: statistics travel beside the updates, and their median is tested with."""

import numpy as np
import pytest
import torch

from fedguard import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.flcert import FLCert
from fedguard.simulation.jobs import train_job
from fedguard.simulation.models import build_model
from fedguard.simulation.pool import Workers
from fedguard.simulation.recorded import recording_to
from fedguard.training.local import train_client, trained
from fedguard.training.parameters import (
    error_and_loss,
    flat_parameters,
    flat_statistics,
    load_statistics,
    with_statistics,
)

SUITE = """\
data: digits
model: MODEL
clients: 4
malicious: 1
rounds: 2
training: {steps: 1, batch_size: 8, lr: 0.05}
attacks: [{name: byzantine, mode: flip}]
defenses: {d: DEFENSE}
"""


def cell_of(tmp_path, defense="{detector: {name: krum, select: m_krum}}", model="MODEL"):
    path, batch = tmp_path / "suite.yaml", "{name: resnet20, norm: batch}"
    text = SUITE.replace("MODEL", model).replace("MODEL", batch)
    path.write_text(text.replace("DEFENSE", defense), encoding="utf-8")
    return load_suite(path, [])[0].cells()[0]


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def bits(federation):
    records = federation.run()
    return [(r.tacc, r.loss) for r in records], federation.params, federation.statistics


def test_statistics_are_the_median_of_the_accepted(tmp_path):
    jobs = []

    def noting(function, items):
        results = [function(item) for item in items]
        if function is train_job:
            jobs.extend(zip(items, results, strict=True))
        return results

    federation = Federation(cell_of(tmp_path), noting)
    federation.step(0)
    outcome_weights = {row.client: row.weight for row in federation.rows(federation.advance(1))}
    sent = {job[1][0]: result[1][0] for job, result in jobs if job[2] == 1}
    accepted = np.array([sent[c] for c, weight in outcome_weights.items() if weight > 0])
    assert len(accepted) < 4
    np.testing.assert_allclose(federation.statistics, np.median(accepted, axis=0), rtol=1e-6)
    assert not torch.equal(federation.statistics, federation.setup.initial_statistics)
    assert torch.equal(flat_statistics(federation.setup.model), federation.setup.initial_statistics)


@pytest.mark.usefixtures("forked_workers")
def test_workers_and_a_resumed_run_give_the_same_bits(tmp_path):
    cell = cell_of(tmp_path)
    records, params, statistics = bits(Federation(cell))
    with Workers(2) as workers:
        again, other_params, other_statistics = bits(Federation(cell, workers.map))
    assert again == records
    assert torch.equal(params, other_params)
    assert torch.equal(statistics, other_statistics)
    first = Federation(cell)
    done = [first.step(0)]
    second = Federation(cell)
    second.load_state_dict(first.state_dict())
    assert second.step(1).loss == records[1][1]
    assert done[0].loss == records[0][1]


def test_models_without_statistics_keep_their_states(tmp_path):
    federation = Federation(cell_of(tmp_path, model="logistic_regression"))
    assert len(federation.statistics) == 0
    assert "statistics" not in federation.state_dict()
    assert federation._lent(0) is federation._server


def test_what_a_recording_could_not_replay_is_not_recorded(tmp_path):
    recording = recording_to(tmp_path / "recording", Federation(cell_of(tmp_path)))
    with pytest.raises(ParameterError, match="do not store BatchNorm statistics"):
        recording.__enter__()
    assert not (tmp_path / "recording").exists()


def test_groups_of_flcert_vote_with_statistics_of_their_own(tmp_path):
    ensemble = FLCert(cell_of(tmp_path, "{flcert: {groups: 2}}"))
    ensemble.step(0)
    one, other = (part.statistics for part in ensemble.members)
    assert not torch.equal(one, other)


def test_training_puts_the_buffers_back_and_returns_them():
    model, before = network(), flat_statistics(network())
    start, settings = flat_parameters(model), LocalTraining(steps=3, epochs=None, batch_size=4)
    data = (torch.randn(12, 4) + 3, torch.arange(12) % 2)
    draw = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    (result,) = trained(model, start, [LabeledData(*data)], settings, [draw()])
    assert torch.equal(flat_statistics(model), before)
    assert model[1].num_batches_tracked == 0
    assert not torch.equal(result.statistics, before)
    assert torch.equal(train_client(model, start, LabeledData(*data), settings, draw()), result.update)


def test_a_model_is_measured_with_the_statistics_it_is_given():
    model, sample = network().eval(), LabeledData(torch.randn(30, 4), torch.arange(30) % 2)
    other = with_statistics(model, flat_statistics(model) + 2)
    assert error_and_loss(other, flat_parameters(model), sample) != error_and_loss(
        model, flat_parameters(model), sample
    )
    load_statistics(model, flat_statistics(other))
    assert torch.equal(flat_statistics(model), flat_statistics(other))
    plain = torch.nn.Linear(2, 2)
    assert with_statistics(plain, flat_statistics(plain)) is plain, "no copy without statistics"


@pytest.mark.parametrize("norm", ["layer", 3])
def test_an_unknown_normalization_is_refused(norm):
    with pytest.raises(ParameterError, match="norm"):
        build_model("resnet20", (3, 32, 32), 10, torch.Generator(), norm=norm)
