"""Data sets: embedded ones, files as they are found, damaged files, downloads into the cache."""

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split

from fedguard.contracts.data import Samples
from fedguard.core.errors import DataError, ParameterError
from fedguard.simulation.datasets import CATALOGUE, datasets, load_dataset
from fedguard.simulation.datasets.base import image_dataset
from fedguard.simulation.datasets.embedded import stratified
from fedguard.simulation.datasets.mnist import NAMES, read_idx

rng = np.random.default_rng(0)


# --- embedded in scikit-learn ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "classes", "sizes"),
    [("digits", (1, 8, 8), 10, (1437, 360)), ("breast_cancer", (30,), 2, (455, 114))],
)
def test_embedded_data_sets(name, shape, classes, sizes):
    data = load_dataset(name)
    assert (data.name, data.input_shape, data.num_classes) == (name, shape, classes)
    assert (len(data.train.labels), len(data.test.labels)) == sizes
    for part in (data.train, data.test):
        assert part.pixels.shape == (len(part.labels), *shape)
        assert part.pixels.dtype == torch.float32
        assert part.labels.dtype == torch.int64
        assert part.labels.unique().tolist() == list(range(classes))
    everything = data.train.labels.bincount() + data.test.labels.bincount()
    assert ((data.test.labels.bincount() / everything - 0.2).abs() < 0.01).all(), "stratified"


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_embedded_splits_are_fixed_and_complete(name):
    first, second = load_dataset(name), load_dataset(name)
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert torch.equal(first.test.labels, second.test.labels)
    whole = torch.cat([first.train.pixels, first.test.pixels]).flatten(1)
    raw = getattr(sklearn.datasets, f"load_{name}")().data / (16 if name == "digits" else 1)
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, raw.astype(np.float32).tolist()))


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_embedded_data_are_scikit_learns_and_split_by_it(name):
    data, bunch = load_dataset(name), getattr(sklearn.datasets, f"load_{name}")()
    split = train_test_split(bunch.data, bunch.target, test_size=0.2, stratify=bunch.target, random_state=0)
    white = 16 if name == "digits" else 1
    for samples, inputs, labels in ((data.train, *split[::2]), (data.test, *split[1::2])):
        assert torch.equal(samples.pixels.flatten(1) * white, torch.from_numpy(inputs).float())
        assert samples.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("seed", range(30))
def test_the_split_is_scikit_learns(seed):
    draw = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(5), 3), draw.integers(0, 5, draw.integers(20, 300))])
    test = float(draw.choice([0.2, 0.25, 0.5]))
    theirs = train_test_split(np.arange(len(labels)), test_size=test, stratify=labels, random_state=seed)
    for ours, rows in zip(stratified(labels, test, seed), theirs, strict=True):
        assert ours.tolist() == rows.tolist()


def test_digits_are_read_without_importing_scikit_learn():
    code = "import sys; from fedguard.simulation.datasets import load_dataset; load_dataset('digits'); "
    subprocess.run([sys.executable, "-c", code + "assert 'sklearn' not in sys.modules"], check=True)


def test_digits_are_pixels_in_the_unit_interval():
    pixels = load_dataset("digits").train.pixels
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert torch.equal(pixels * 16, (pixels * 16).round())


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_normalized_training_data_have_mean_0_and_std_1(name):
    data = load_dataset(name)
    before = data.train.pixels.clone()
    inputs, labels = data.labeled(data.train)
    axes = (0, *range(2, inputs.ndim))
    assert inputs.double().mean(axes).abs().max() < 1e-5
    assert (inputs.double().std(axes, correction=0) - 1).abs().max() < 1e-5
    assert torch.equal(labels, data.train.labels)
    assert torch.equal(data.train.pixels, before), "pixels stay as they are"


def test_constants_of_images_against_float64():
    images = rng.integers(0, 256, (50, 3, 5, 4), dtype=np.uint8)
    labels = rng.integers(0, 10, 50)
    data = image_dataset("x", (images, labels), (images[:5], labels[:5]))
    for c in range(3):
        channel = images[:, c].astype(np.float64) / 255
        assert data.mean[c] == pytest.approx(channel.mean(), rel=1e-12)
        assert data.std[c] == pytest.approx(channel.std(), rel=1e-12)
    one = data.normalize(data.test.pixels)[1, 2, 3, 0]
    assert float(one) == pytest.approx((images[1, 2, 3, 0] / 255 - data.mean[2]) / data.std[2], rel=1e-5)


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ParameterError, match="did you mean 'fashion_mnist'"):
        load_dataset("fasion_mnist")


def test_every_data_set_has_a_one_line_summary():
    assert {
        "digits",
        "breast_cancer",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "tiny_shakespeare",
    } | {"csv", "parquet", "npz", "image_folder", "text", "instructions", "topics"} == set(CATALOGUE)
    assert all(datasets.summary(name) for name in CATALOGUE)


# --- idx files ------------------------------------------------------------------------------------


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays(train=12, test=5):
    images = [rng.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (train, test)]
    labels = [rng.integers(0, 10, n, dtype=np.uint8) for n in (train, test)]
    return [images[0], labels[0], images[1], labels[1]]


def write_mnist(root, arrays, folder="MNIST", packed=True):
    raw = Path(root) / folder / "raw"
    raw.mkdir(parents=True)
    for name, array in zip(NAMES, arrays, strict=True):
        content = idx(array)
        (raw / f"{name}{'.gz' if packed else ''}").write_bytes(gzip.compress(content) if packed else content)
    return raw


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_reads_idx_files_as_they_are(tmp_path, name, folder, packed):
    arrays = mnist_arrays()
    write_mnist(tmp_path, arrays, folder, packed)
    before = sorted(tmp_path.rglob("*"))
    data = load_dataset(name, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before, "the data root is never written to"
    assert data.input_shape == (1, 28, 28)
    for part, images, labels in ((data.train, *arrays[:2]), (data.test, *arrays[2:])):
        assert isinstance(part, Samples)
        assert np.array_equal((part.pixels[:, 0] * 255).round().numpy(), images)
        assert part.labels.tolist() == labels.tolist()


def test_the_argument_wins_over_the_environment(tmp_path, monkeypatch):
    for name, size in (("argument", 3), ("environment", 4)):
        write_mnist(tmp_path / name, mnist_arrays(size, 2))
    monkeypatch.setenv("FEDGUARD_DATA", str(tmp_path / "environment"))
    assert len(load_dataset("mnist", tmp_path / "argument").train.labels) == 3
    assert len(load_dataset("mnist").train.labels) == 4


BAD_IDX = {
    "cut short inside the packing": (
        lambda _: gzip.compress(idx(np.zeros((3, 28, 28), np.uint8)))[:-9],
        "cannot be read",
    ),
    "not packed": (lambda a: idx(a), "Not a gzipped file"),
    "bits flipped": (
        lambda a: gzip.compress(idx(a))[:60] + b"\xff" * 40 + gzip.compress(idx(a))[100:],
        "cannot be read",
    ),
    "data missing": (lambda a: gzip.compress(idx(a)[:-1]), "bytes"),
    "data too long": (lambda a: gzip.compress(idx(a) + b"x"), "bytes"),
    "empty": (lambda _: gzip.compress(b""), "starts with"),
    "labels instead of images": (lambda a: gzip.compress(idx(a[:, 0, 0].copy())), "starts with"),
    "floats": (lambda a: gzip.compress(b"\0\0\x0d\x03" + idx(a)[4:]), "starts with"),
    "other shape": (lambda a: gzip.compress(idx(a.reshape(-1, 14, 56))), "shape"),
    "no images": (lambda a: gzip.compress(idx(a[:0])), "shape"),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_damaged_idx_files_are_named(tmp_path, case):
    damage, message = BAD_IDX[case]
    arrays = mnist_arrays()
    path = write_mnist(tmp_path, arrays) / f"{NAMES[0]}.gz"
    path.write_bytes(damage(arrays[0]))
    with pytest.raises(DataError, match=message) as caught:
        load_dataset("mnist", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros(11, np.uint8), "12 images but .* 11 labels"), (np.full(12, 10, np.uint8), "label 10")],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    arrays = mnist_arrays()
    arrays[1] = labels
    write_mnist(tmp_path, arrays)
    with pytest.raises(DataError, match=message):
        load_dataset("mnist", tmp_path)


def test_idx_of_labels(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(np.array([3, 1, 4], np.uint8)))
    assert read_idx(path, ()).tolist() == [3, 1, 4]


# --- text -----------------------------------------------------------------------------------------


def write_text(root, text):
    folder = root / "tinyshakespeare"
    folder.mkdir(exist_ok=True)
    (folder / "input.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_passages_and_their_next_characters_by_hand(tmp_path):
    text = "".join("abcdeé\n"[(i * i + i // 3) % 7] for i in range(2000))
    write_text(tmp_path, text)
    data = load_dataset("tiny_shakespeare", tmp_path)
    alphabet = sorted(set(text))
    assert (data.input_shape, data.num_classes) == ((80,), len(alphabet))
    for part, own in ((data.train, text[:1800]), (data.test, text[1800:])):
        starts = range(0, len(own) - 80, 20)
        assert len(part.labels) == len(starts)
        for i, start in enumerate(starts):
            assert "".join(alphabet[int(c)] for c in part.pixels[i]) == own[start : start + 80]
            assert alphabet[part.labels[i]] == own[start + 80]
    assert torch.equal(data.training_set.inputs, data.train.pixels), "numbers are not normalized"


def test_speakers_are_natural_clients(tmp_path):
    speeches = [("ANN", "a" * 500), ("BOB", "short"), ("CAT", "c" * 300), ("ANN", "x: y" * 100)]
    write_text(tmp_path, "\n\n".join(f"{name}:\n{speech}" for name, speech in speeches))
    data = load_dataset("tiny_shakespeare", tmp_path, by="speaker")
    assert data.client_names == ("ANN", "CAT"), (
        "in the order of their first words; too short a part is left out"
    )
    own = {"ANN": "a" * 500 + "\n" + "x: y" * 100, "CAT": "c" * 300}
    sizes = [len(range(0, int(len(text) * 0.9) - 80, 20)) for text in own.values()]
    assert data.clients.tolist() == [0] * sizes[0] + [1] * sizes[1]
    alphabet = sorted(set("ANNBOBCAT:\n short" + "".join(own.values())))
    last = data.train.pixels[sizes[0] - 1]
    start = 20 * (sizes[0] - 1)
    assert "".join(alphabet[int(c)] for c in last) == own["ANN"][start : start + 80]
    assert data.num_classes == len(alphabet)
    write_text(tmp_path, "no speaker " * 100)
    with pytest.raises(DataError, match="no speeches"):
        load_dataset("tiny_shakespeare", tmp_path, by="speaker")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "only 0 characters"), (b"a" * 800, "only 800 characters"), (b"\xff" * 2000, "cannot be read")],
)
def test_text_that_is_none_or_too_short(tmp_path, content, message):
    write_text(tmp_path, content)
    with pytest.raises(DataError, match=rf"input.txt .*{message}.*replace it"):
        load_dataset("tiny_shakespeare", tmp_path)


# --- missing files and downloads ------------------------------------------------------------------

MISSING = {
    "mnist": Path("MNIST/raw/train-images-idx3-ubyte or train-images-idx3-ubyte.gz"),
    "fashion_mnist": Path("FashionMNIST/raw/train-images-idx3-ubyte or train-images-idx3-ubyte.gz"),
    "cifar10": Path("cifar-10-batches-py/data_batch_1"),
    "tiny_shakespeare": Path("tinyshakespeare/input.txt"),
}


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("given", ["argument", "environment"])
def test_missing_files_say_where_they_were_expected(tmp_path, monkeypatch, name, given):
    monkeypatch.setenv("FEDGUARD_DATA", str(tmp_path))
    with pytest.raises(DataError, match="is missing") as caught:
        load_dataset(name, tmp_path if given == "argument" else None)
    assert str(tmp_path / MISSING[name]) in str(caught.value)
    assert ("`data_root`" if given == "argument" else "FEDGUARD_DATA") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_data_root_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere is not a folder; check `data_root`"):
        load_dataset("mnist", tmp_path / "nowhere")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """No data root, an empty cache, and a network that always fails."""
    from fedguard.simulation.vision import datasets

    def unreachable(root, download):
        raise URLError("no route to host")

    monkeypatch.delenv("FEDGUARD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("MNIST", "FashionMNIST", "CIFAR10"):
        monkeypatch.setattr(datasets, name, unreachable)
    monkeypatch.setattr(datasets.utils, "download_url", lambda *_, **__: unreachable(None, None))
    return tmp_path / "fedguard" / "data"


def test_downloads_into_the_cache_once(cache, monkeypatch):
    from fedguard.simulation.vision import datasets

    calls = []

    def fake(root, download):
        calls.append(download)
        write_mnist(root, mnist_arrays(), "FashionMNIST")

    monkeypatch.setattr(datasets, "FashionMNIST", fake)
    first = load_dataset("fashion_mnist")
    second = load_dataset("fashion_mnist")
    assert calls == [True]
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert [path.name for path in cache.iterdir()] == ["FashionMNIST"]


def test_a_file_deleted_from_the_cache_is_downloaded_again(cache, monkeypatch):
    from fedguard.simulation.vision import datasets

    monkeypatch.setattr(datasets, "MNIST", lambda root, download: write_mnist(root, mnist_arrays()))
    load_dataset("mnist")
    (cache / "MNIST" / "raw" / f"{NAMES[2]}.gz").unlink()
    assert len(load_dataset("mnist").test.labels) == 5


def test_the_text_is_downloaded_into_the_cache(cache, monkeypatch):
    from fedguard.simulation.vision import torchvision

    def fake(url, folder, name, md5):
        assert (name, len(md5)) == ("input.txt", 32)
        Path(folder).mkdir()
        write_text(Path(folder).parent, "to be or not " * 200)

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", fake)
    assert load_dataset("tiny_shakespeare").num_classes == len(set("to be or not "))
    assert (cache / "tinyshakespeare" / "input.txt").is_file()


@pytest.mark.parametrize("name", MISSING)
def test_a_failed_download_gives_advice_and_leaves_nothing(cache, name):
    with pytest.raises(DataError, match=r"no route to host.*set FEDGUARD_DATA"):
        load_dataset(name)
    assert list(cache.iterdir()) == []


# --- the real data --------------------------------------------------------------------------------

needs_data = pytest.mark.skipif(not os.environ.get("FEDGUARD_DATA"), reason="FEDGUARD_DATA is not set")
USUAL = {  # the constants that everybody uses; those of CIFAR-10 hold for the full set
    "mnist": ((60000, 10000), (0.1307,), (0.3081,), 1e-4),
    "fashion_mnist": ((60000, 10000), (0.2860,), (0.3530,), 1e-4),
    "cifar10": (None, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 1e-3),
}


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("name", USUAL)
def test_real_data(name):
    sizes, mean, std, tolerance = USUAL[name]
    data = load_dataset(name)
    assert sizes is None or (len(data.train.labels), len(data.test.labels)) == sizes
    assert data.mean == pytest.approx(mean, abs=tolerance)
    assert data.std == pytest.approx(std, abs=tolerance)
    assert data.train.pixels.shape[1:] == data.test.pixels.shape[1:]
    assert (data.train.pixels.min(), data.train.pixels.max()) == (0, 1)
    assert data.train.labels.unique().tolist() == list(range(10))


@pytest.mark.slow
@needs_data
def test_real_text():
    data = load_dataset("tiny_shakespeare")
    assert (data.num_classes, len(data.train.labels), len(data.test.labels)) == (65, 50189, 5573)
