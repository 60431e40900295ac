"""Suites on data of one's own: they run, resume only on the same data, and name every mistake."""

import sqlite3
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from fedguard.contracts.data import Samples
from fedguard.core.errors import ConfigError, DataError, ResultsError
from fedguard.core.named_code import GIVEN
from fedguard.evaluation.results.compare import compare
from fedguard.evaluation.results.data import fingerprints, named, sign_data, stored_data
from fedguard.evaluation.results.folders import folder_for
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.federation import Federation

rng = np.random.default_rng(0)
REST = (
    "clients: 4\nmalicious: 1\nrounds: 2\ntraining: {lr: 0.1}\n"
    "attacks: [label_flip]\ndefenses: [{detector: krum, policy: exclude}]\n"
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDGUARD_DATA", raising=False)
    return tmp_path


def suite(data, rest=REST):
    """A checked suite on this data, in the current folder."""
    with open("own.yaml", "w", encoding="utf-8") as file:  # noqa: PTH123 - the current folder
        file.write(f"name: own\ndata: {data}\n{rest}")
    plan, source = load_suite("own.yaml")
    check_suite(plan, source)
    return plan


def write_csv(path="hospital.csv", shift=0.0):
    rows = [f"{k % 7 + shift},{'ab'[k % 2]},site{k % 4},{'ill' if k % 2 else 'well'}" for k in range(80)]
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write("\n".join(["age,ward,site,diagnosis", *rows]))


CSV = "{name: csv, path: hospital.csv, label: diagnosis, client: site}"


def test_a_suite_on_a_csv_file():
    write_csv()
    plan = suite(CSV)
    store = run_suite(plan, folder_for(Path("results/own"), plan), workers=1)
    (run,) = store.table("runs").itertuples()
    assert run.status == "done"
    assert run.tacc > 0.9, "the ward tells the diagnosis"
    setup = Federation(plan.cells()[0]).setup
    assert setup.dataset.client_names == ("site0", "site1", "site2", "site3")
    assert stored_data(store) == {plan.data.key: setup.dataset.fingerprint}


@pytest.mark.usefixtures("forked_workers")
def test_workers_get_the_same_data():
    write_csv()
    plan = suite(CSV, REST.replace("attacks: [label_flip]", "attacks: [label_flip, none]"))
    one, two = (run_suite(plan, Path(name), workers=w) for name, w in (("one", 1), ("two", 2)))
    assert one.table("rounds").equals(two.table("rounds"))
    assert one.table("clients").equals(two.table("clients"))


def test_a_suite_on_a_folder_of_pictures():
    from PIL import Image

    for k in range(40):
        path = Path(f"pictures/{('light', 'dark')[k % 2]}/{k}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        low = 0 if k % 2 else 155
        Image.fromarray(rng.integers(low, low + 100, (6 + k % 3, 6), dtype=np.uint8)).save(path)
    plan = suite("{name: image_folder, path: pictures, resize: 6}")
    (run,) = run_suite(plan, Path("out"), workers=1).table("runs").itertuples()
    assert (run.status, run.tacc) == ("done", 1.0)


def test_a_suite_on_emnist(here):
    raw = here / "root" / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 80), ("test", 20)):
        images, labels = np.zeros((n, 28, 28), np.uint8), (np.arange(n) % 10).astype(np.uint8)
        images[np.arange(n), labels] = 255
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(int(s).to_bytes(4, "big") for s in array.shape)
            (raw / f"emnist-digits-{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    plan = suite(f"{{name: 'torchvision:EMNIST', split: digits, data_root: {here / 'root'}}}")
    (run,) = run_suite(plan, Path("out"), workers=1).table("runs").itertuples()
    assert run.status == "done"
    assert run.tacc > 0.5, "a row of white pixels tells the digit"


# --- changed data -----------------------------------------------------------------------------------


def unfinished(store):
    """Take the only run out of a results folder, as if it had been interrupted."""
    store.forget([0])


def test_changed_weights_are_never_resumed_as_the_same_run(here):
    path, folder = here / "start.safetensors", here / "out"
    path.write_bytes(b"some weights")
    plan, _ = load_suite("quickstart", [f"model={{name: cnn, weights: {path}}}"])
    folder.mkdir()
    sign_data(Store.create(folder, plan), plan)
    sign_data(Store.create(folder, plan), plan)
    path.write_bytes(b"other weights")
    with pytest.raises(
        ResultsError, match=r"results of other weights: cnn \(weights = .*\) has changed since"
    ):
        sign_data(Store.create(folder, plan), plan)
    path.unlink()
    with pytest.raises(DataError, match=r"the weights in .* cannot be read"):
        sign_data(Store.create(folder, plan), plan)
    none, _ = load_suite("quickstart", ["model={name: cnn, weights: none}"])
    assert len(fingerprints(none)) == 1, "of the data alone"


def test_changed_data_are_never_resumed_as_the_same_run():
    write_csv()
    store = run_suite(suite(CSV), Path("out"), workers=1)
    unfinished(store)
    write_csv(shift=0.5)
    plan = suite(CSV)
    with pytest.raises(
        ResultsError, match=r"csv \(client = site, label = diagnosis, path = hospital\.csv\) has changed"
    ):
        run_suite(plan, Path("out"), workers=1)
    assert store.finished() == {}
    write_csv()
    assert run_suite(suite(CSV), Path("out"), workers=1).finished() == {0: "done"}


def test_the_default_folder_of_changed_data_is_another_one():
    write_csv()
    plan = suite(CSV)
    base = Path("results/own")
    unfinished(run_suite(plan, folder_for(base, plan), workers=1))
    assert folder_for(base, plan) == base
    write_csv(shift=0.5)
    assert folder_for(base, suite(CSV)) == Path("results/own-2")


def test_folders_without_fingerprints_are_read_and_get_them():
    write_csv()
    plan = suite(CSV)
    store = run_suite(plan, Path("out"), workers=1)
    with sqlite3.connect(store.path) as db:
        db.execute("DELETE FROM meta WHERE name = 'data'")
    db.close()
    assert stored_data(Store(Path("out"))) == {}
    run_suite(plan, Path("out"), workers=1)
    assert len(stored_data(store)) == 1


@pytest.mark.parametrize("value", ["no JSON", "[1]", '{"csv": 3}', "[" * 10**5])
def test_fingerprints_that_are_none_are_refused(value):
    write_csv()
    store = run_suite(suite(CSV), Path("out"), workers=1)
    store.note("data", value)
    with pytest.raises(ResultsError, match="fingerprints of the data are not JSON"):
        stored_data(store)


def test_a_comparison_shows_other_data():
    write_csv()
    run_suite(suite(CSV), Path("before"), workers=1)
    write_csv(shift=0.5)
    run_suite(suite(CSV), Path("after"), workers=1)
    settings = compare(Store(Path("before")), Store(Path("after")), ["dacc"]).settings
    assert [path for path, *_ in settings if path.startswith("fingerprint of csv (")]


def test_keys_as_words():
    assert named('{"name": "digits"}') == "digits"
    assert named('{"name": "csv", "path": "x"}') == "csv (path = x)"
    assert named("[1]") == "[1]"


# --- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            "{name: csv, path: hopsital.csv, label: diagnosis}",
            r"own\.yaml:2: data\.path: .*hopsital\.csv is not a file",
        ),
        (
            "{name: csv, path: hospital.csv, label: diagnosi}",
            r"own\.yaml:2: data\.label: .*did you mean 'diagnosis'",
        ),
        ("{name: csv, path: hospital.csv}", r"own\.yaml:2: data: .*parameter 'label' is missing"),
        ("{name: csv, path: hospital.csv, lable: x}", r"own\.yaml:2: data: .*did you mean 'label'"),
        ("{name: csv, path: hospital.csv, label: diagnosis, test: 2}", r"own\.yaml:2: data\.test: test is 2"),
        ("{name: cvs, path: hospital.csv, label: diagnosis}", r"own\.yaml:2: data: .*did you mean 'csv'"),
    ],
)
def test_mistakes_name_the_line_of_the_suite(data, message):
    write_csv()
    with pytest.raises(ConfigError, match=message):
        suite(data)


def test_mistakes_in_the_data_name_the_line_of_the_data():
    write_csv()
    with open("hospital.csv", "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write("\nNaN,a,site1,ill")
    with pytest.raises(
        DataError, match=r"own\.yaml:2: data: hospital\.csv:82: column 'age': a value is missing"
    ):
        suite(CSV)


def test_paths_count_from_the_current_folder(here, monkeypatch):
    write_csv()
    suite(CSV)
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    plan, source = load_suite("../own.yaml")
    with pytest.raises(
        ConfigError, match=r"elsewhere/hospital\.csv is not a file; a relative path counts from"
    ):
        check_suite(plan, source)


def test_edited_data_are_read_again():
    write_csv()
    first = Federation(suite(CSV).cells()[0]).setup.dataset
    write_csv(shift=0.5)
    again = Federation(suite(CSV).cells()[0]).setup.dataset
    assert first.fingerprint != again.fingerprint


def plane(**changes):
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 2))).float()
    labels = changes.pop("labels", (points[:, 0] > 0).long())
    samples = Samples(points, labels)
    parts = {"train": samples, "test": samples, "mean": (0.0,), "std": (1.0,), **changes}
    return Dataset(name="plane", num_classes=2, **parts)


def test_a_function_that_does_not_repeat_itself_is_refused(monkeypatch):
    made = types.ModuleType("own_data")
    monkeypatch.setitem(sys.modules, "own_data", made)
    made.load = lambda: (torch.rand(40, 2), torch.arange(40) % 2)
    with pytest.raises(
        ConfigError, match=r"own\.yaml:2: data: own_data:load gives other data when it is read again"
    ):
        suite("own_data:load")
    monkeypatch.setitem(GIVEN, "mine", plane())
    suite("given:mine")


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_attacks_on_classes_need_classes(monkeypatch, task):
    labels = torch.ones(40, 2)
    monkeypatch.setitem(GIVEN, "mine", plane(labels=labels, task=task))
    with pytest.raises(
        ConfigError, match=f"label_flip changes the labels of classes, but the data are for {task}"
    ):
        suite("given:mine")
    with pytest.raises(ConfigError, match=r"own\.yaml:7: attacks\.delayed: .*labels of classes"):
        suite(
            "given:mine",
            REST.replace("[label_flip]", "{delayed: {name: inflated_counts, attack: label_flip}}"),
        )
    suite("given:mine", REST.replace("label_flip", "byzantine"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.arange(40)}, "mine: train: sample 2 has the label 2; 0 to 1 fit"),
        ({"labels": torch.zeros(40)}, "labels are torch.float32"),
        ({"train": Samples(torch.zeros(4, 2, requires_grad=True), torch.arange(4) % 2)}, "have a gradient"),
        ({"train": Samples(torch.zeros(4, 2).half(), torch.arange(4) % 2)}, r"torch\.float16; give"),
        ({"train": Samples(torch.zeros(4, 3), torch.arange(4) % 2)}, "make them alike"),
        ({"std": (0.0,)}, "put 1 where the inputs are constant"),
        ({"mean": (0.0, 1.0, 2.0)}, "give 1 or 2"),
        ({"train": None}, "train is a NoneType"),
        ({"task": "ranking"}, "task is 'ranking'"),
        ({"clients": np.zeros(3, np.int64)}, "clients are int64 of shape"),
        ({"clients": np.arange(40), "client_names": ("a",)}, "numbered 0 to 39, but there are 1 names"),
    ],
)
def test_given_data_sets_are_checked(monkeypatch, changes, message):
    monkeypatch.setitem(GIVEN, "mine", plane(**changes))
    with pytest.raises((ConfigError, DataError), match=message):
        suite("given:mine")
