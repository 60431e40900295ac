"""Passive attacks in a federation, against what a gradient of logistic regression gives away by hand."""

import pytest
import torch

from fedguard.attacks._matching import last_linear
from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.registry import attacks
from fedguard.core.errors import ConfigError, ParameterError
from fedguard.core.seeds import generator
from fedguard.core.state import pack, unpack
from fedguard.evaluation.api.evaluate import evaluate
from fedguard.evaluation.results.frame import read_results
from fedguard.evaluation.results.tables import attack_tables
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.passive import PassiveAttack, Reconstruction
from fedguard.simulation.federation import Federation
from fedguard.simulation.flcert import FLCert
from fedguard.simulation.keys import CellKey
from fedguard.simulation.leaks import leak_job
from fedguard.simulation.shadow import Shadow
from fedguard.training.local import train_client, visited

SEEN = []


class ByHand(PassiveAttack):
    """For z = W x + b, ∂ℓ/∂W_i = ∂ℓ/∂z_i xᵀ and ∂ℓ/∂b_i = ∂ℓ/∂z_i, which is negative for the label only."""

    card = Card("by_hand", "one sample of logistic regression, exactly", "FedGuard")

    def reconstruct(self, leak):
        SEEN.append(leak)
        weight, bias = last_linear(leak, self.name)
        label = int(bias.argmin())
        return Reconstruction((weight[label] / bias[label]).view(1, *leak.input_shape), torch.tensor([label]))


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    monkeypatch.setattr(attacks, "_added", {**attacks._added, "by_hand": ByHand})
    SEEN.clear()


def cell(attack="by_hand", *more):
    changes = [
        f"attacks=[{attack}]", "defenses={d: {}}", "model=logistic_regression", "clients=6", "malicious=2",
        "rounds=3", "training={steps: 1, batch_size: 1, lr: 0.1}",
    ]  # fmt: skip
    return load_suite("quickstart", [*changes, *more])[0].cells()[0]


def leaks(cell, federate=Federation):
    return [record.info.get("leak") for record in federate(cell).run()]


def test_the_sample_of_a_client_s_only_step_is_found_exactly():
    for found in leaks(cell()):
        assert found["psnr"] > 80 > 30 > found["noise_psnr"]
        assert found["ssim"] > 0.9999 > found["noise_ssim"]
        assert found["labels"] == 1
    assert [leak.count for leak in SEEN] == [1, 1, 1]


def test_the_federation_has_the_bits_of_one_without_an_attack():
    one, other = Federation(cell()), Federation(cell("none"))
    for mine, plain in zip(one.run(), other.run(), strict=True):
        assert str(mine.clients) == str(plain.clients)  # NaN is not equal to itself
        assert (mine.tacc, mine.loss) == (plain.tacc, plain.loss)
    torch.testing.assert_close(one.params, other.params, rtol=0, atol=0)
    assert not any(row.malicious or row.attacking for row in mine.clients)


def test_rounds_victims_and_samples_are_those_of_the_suite():
    spec = "{name: by_hand, schedule: {start: 1, every: 2}, victims: {clients: 4, samples: 3}}"
    found = leaks(cell(spec, "rounds=4"))
    assert [bool(leak) for leak in found] == [False, True, False, True]
    assert [leak.count for leak in SEEN] == [3] * 8
    one, other = (torch.stack([leak.update for leak in part]) for part in (SEEN[:4], SEEN[4:]))
    assert len(one.unique(dim=0)) == len(other.unique(dim=0)) == 4


def test_a_resumed_run_finds_the_same():
    whole = Federation(cell()).run()
    first, second = Federation(cell()), Federation(cell())
    done = [first.step(0)]
    second.load_state_dict(unpack(pack(first.state_dict())))
    assert [r.info for r in second.run(done=done)] == [r.info for r in whole]


def test_updates_of_an_older_model_have_no_victims():
    federation = Federation(cell("{name: by_hand, victims: {clients: 99}}", "late=0.5", "rounds=4"))
    for index in range(4):
        start = federation.params.clone()
        SEEN.clear()
        progress = federation.advance(index)
        on_time = set(progress.asked) & set(progress.called.training)
        assert len(SEEN) == len(on_time) < len(progress.called.training)
        for leak in SEEN:
            torch.testing.assert_close(leak.global_params, start, rtol=0, atol=0)


def test_shadows_and_groups_record_what_leaks():
    plain = leaks(cell())
    shadow = Shadow([cell("by_hand", "mode=shadow", "defenses={d: {detector: krum}}")])
    shadow.run()
    assert [record.info["leak"] for record in shadow.watchers[0].records] == plain
    for found in leaks(cell("by_hand", "defenses={d: {flcert: {groups: 2}}}"), FLCert):
        assert found["psnr"] > 80


def test_the_table_of_runs_has_what_leaks():
    results = evaluate(
        None, data="digits", model="logistic_regression", clients=4, rounds=2, workers=1,
        training={"steps": 1, "batch_size": 1, "lr": 0.1}, attacks=["none", "by_hand", "revealing_labels"],
        defenses=["krum"],
    )  # fmt: skip
    frame = results.frame.set_index("attack")
    assert frame.loc["by_hand", "leak_psnr"] > 80 > frame.loc["by_hand", "noise_psnr"]
    assert frame.loc["revealing_labels", "leak_labels"] == 1
    assert frame.loc["none"].filter(like="leak").isna().all()
    assert frame["tacc"].nunique() == 1
    heads = [[c.header for c in table.columns] for _, table in attack_tables(read_results(results.folder))]
    assert [("Leak PSNR dB" in head, "Leak labels %" in head) for head in heads] == [
        (False, False), (True, True), (False, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 2, "batch_size": 4},
        {"epochs": None, "steps": 2, "batch_size": 3},
        {"epochs": None, "steps": 9, "batch_size": 2},
        {"epochs": 1, "batch_size": 4, "patience": 1, "holdout": 0.3},
    ],
)
def test_the_samples_that_count_are_those_that_move_the_update(settings):
    """The others, replaced by noise, change no bit of it."""
    training, rows = LocalTraining(**settings), torch.arange(10)
    draw = torch.Generator().manual_seed(1)
    data = LabeledData(torch.randn(10, 4, generator=draw), torch.arange(10) % 3)
    seen = visited(rows, training, generator(7, "batches"))
    assert len(seen.unique()) == len(seen)
    model = torch.nn.Linear(4, 3)
    start = torch.zeros(15)

    def trained(inputs):
        return train_client(model, start, LabeledData(inputs, data.labels), training, generator(7, "batches"))

    update = trained(data.inputs)
    for row in rows:
        other = data.inputs.clone()
        other[row] = 9.0
        if settings.get("patience") and row not in seen:
            continue  # a held-out sample may end the training
        assert torch.equal(trained(other), update) == (row not in seen)


def test_what_cannot_be_attacked_is_refused_before_training():
    with pytest.raises(ParameterError, match="attack lie reconstructs no data; leave `victims` out"):
        Federation(cell("{name: lie, victims: {clients: 1}}"))
    for change, words in (
        ("data=breast_cancer", "leaks are measured on images"),
        ("attacks=[{name: dlg, victims: {sample: 2}}]", "did you mean 'samples'"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_suite(*load_suite("quickstart", ["attacks=[dlg]", "partition=iid", change]))


def test_other_attacks_keep_their_keys():
    assert "victims" not in cell("lie").attack.model_dump()
    assert cell("dlg").key != cell("{name: dlg, victims: {clients: 2}}").key


def test_an_attack_that_is_not_passive_reconstructs_nothing():
    with pytest.raises(ParameterError, match="lie is not passive"):
        leak_job((CellKey.of(cell("lie")), 0, 0, 1.0, *[torch.zeros(1).numpy()] * 3))
