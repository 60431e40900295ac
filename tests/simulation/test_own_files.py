"""Arrays, pictures and library data sets of one's own: what they become, and every mistake by file."""

import os
import pickle
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch

from fedguard.contracts.data import LabeledData, Samples
from fedguard.core.errors import DataError, ParameterError
from fedguard.core.named_code import GIVEN
from fedguard.simulation.datasets import as_dataset, image_folder, load_dataset, npz
from fedguard.simulation.datasets.base import image_dataset

rng = np.random.default_rng(0)
IMAGES, LABELS = rng.integers(0, 256, (30, 5, 4), dtype=np.uint8), np.arange(30) % 3
POINTS = rng.normal(size=(30, 2))


# --- .npz -------------------------------------------------------------------------------------------


def saved(tmp_path, **arrays):
    np.savez_compressed(tmp_path / "own.npz", **arrays)
    return str(tmp_path / "own.npz")


def test_npz_with_its_own_test_data_is_an_image_data_set(tmp_path):
    path = saved(tmp_path, train_x=IMAGES, train_y=LABELS, test_x=IMAGES[:6], test_y=LABELS[:6])
    expected = image_dataset("npz", (IMAGES[:, None], LABELS), (IMAGES[:6, None], LABELS[:6]), 3)
    assert load_dataset("npz", path=path).fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    "names", [("x_train", "y_train"), ("train_images", "train_labels"), ("inputs", "labels")]
)
def test_other_names_in_npz(tmp_path, names):
    arrays = dict(zip(names, (IMAGES, LABELS), strict=True))
    others = {n.replace("train", "test"): a[:6] for n, a in arrays.items() if "train" in n}
    data = load_dataset("npz", path=saved(tmp_path, **arrays, **others))
    assert len(data.train.labels) == (30 if others else 24)


def test_channels_last_become_channels_first(tmp_path):
    color = rng.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
    data = load_dataset(
        "npz", path=saved(tmp_path, train_x=color, train_y=LABELS, test_x=color, test_y=LABELS)
    )
    assert np.array_equal((data.train.pixels * 255).round().numpy(), color.transpose(0, 3, 1, 2))


def test_natural_clients_of_npz(tmp_path):
    clients = np.array(["b", "a", "c"])[np.arange(30) % 3]
    data = load_dataset("npz", path=saved(tmp_path, inputs=POINTS, labels=LABELS, clients=clients))
    assert data.client_names == ("a", "b", "c")
    assert [data.client_names[k] for k in data.clients] == ["bac"[k] for k in data.train.labels]


BAD_NPZ = {
    "names": ({"a": POINTS}, {}, DataError, "holds a; `inputs` and `labels`"),
    "lengths": ({"inputs": POINTS, "labels": LABELS[:9]}, {}, DataError, "30 inputs, but 9 labels"),
    "clients": ({"x": POINTS, "y": LABELS, "clients": LABELS[:9]}, {}, DataError, "clients of shape"),
    "nan": ({"x": np.where(np.arange(60).reshape(30, 2) == 40, np.nan, POINTS), "y": LABELS}, {}, DataError,
            "sample 20: the input is NaN or infinite, as in 1 of 30"),
    "negative": ({"x": POINTS, "y": LABELS - 1}, {}, DataError, "sample 0: the label is -1"),
    "huge": ({"x": POINTS, "y": LABELS + np.uint64(2**63)}, {}, DataError, "number the classes from 0"),
    "beyond": ({"x": POINTS, "y": LABELS}, {"classes": 2}, DataError, r"sample \d+: the label is 2"),
    "gap": ({"x": POINTS, "y": LABELS * 2}, {}, DataError, "no training sample has the class 1, 3"),
    "halves": ({"x": POINTS, "y": LABELS / 2}, {}, DataError, "not whole numbers"),
    "one hot": ({"x": POINTS, "y": np.eye(3)[LABELS]}, {}, DataError, "task: multilabel"),
    "text": ({"x": POINTS.astype(str), "y": LABELS}, {}, DataError, "not numbers"),
    "no samples": ({"x": POINTS[:0], "y": LABELS[:0]}, {}, DataError, "N > 0"),
    "one class": ({"x": POINTS, "y": LABELS * 0}, {}, DataError, "only one class"),
    "share": ({"x": POINTS, "y": LABELS}, {"test": 0.0}, ParameterError, "between 0 and 1"),
    "tiny share": ({"x": POINTS, "y": LABELS}, {"test": 0.01}, DataError, "cannot be split"),
    "objects": ({"x": np.array([{}, {}]), "y": LABELS[:2]}, {}, DataError, "allow_pickle"),
    "shapes": (
        {"train_x": POINTS, "train_y": LABELS, "test_x": POINTS[:, :1], "test_y": LABELS}, {}, DataError,
        "make them alike",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_NPZ)
def test_mistakes_in_npz(tmp_path, case):
    arrays, params, kind, message = BAD_NPZ[case]
    with pytest.raises(kind, match=message):
        load_dataset("npz", path=saved(tmp_path, **arrays), **params)


def test_npz_unpickles_nothing_and_has_a_limit(tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path = tmp_path / "own.npz"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match=r"own\.npz cannot be read"):
        load_dataset("npz", path=str(path))
    monkeypatch.setattr(npz, "MAX_UNPACKED", 10**6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("x.npy", bytes(2 * 10**6))
    assert path.stat().st_size < 10**4
    with pytest.raises(DataError, match="unpacked"):
        load_dataset("npz", path=str(path))


# --- pictures ---------------------------------------------------------------------------------------


def picture(path, array):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def folder(root, count=5, parts=("train/", "test/")):
    for part in parts:
        for k in range(count):
            for name in ("cat", "dog"):
                picture(root / f"{part}{name}/w{k % 2}_{k}.png", rng.integers(0, 256, (6, 5), dtype=np.uint8))
    return str(root)


def test_folders_of_pictures(tmp_path):
    from PIL import Image

    data = load_dataset("image_folder", path=folder(tmp_path), client="_")
    assert (data.input_shape, data.num_classes) == ((1, 6, 5), 2)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 5
    files = [tmp_path / f"train/{name}/w{k % 2}_{k}.png" for name in ("cat", "dog") for k in (0, 2, 4, 1, 3)]
    expected = np.stack([np.asarray(Image.open(file)) for file in files])
    assert np.array_equal((data.train.pixels[:, 0] * 255).round().numpy(), expected)
    assert data.client_names == ("w0", "w1")
    assert data.clients.tolist() == [0, 0, 0, 1, 1] * 2


def test_one_folder_is_split_and_pictures_are_resized(tmp_path):
    path = folder(tmp_path, 10, ("",))
    picture(tmp_path / "dog" / "color.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"pixels, .*set `resize`"):
        load_dataset("image_folder", path=path)
    data = load_dataset("image_folder", path=path, resize=8)
    assert data.input_shape == (3, 8, 8)
    assert (len(data.train.labels), len(data.test.labels)) == (16, 5)
    assert load_dataset("image_folder", path=path, resize=(8, 4), mode="gray").input_shape == (1, 8, 4)


def png(width, height):
    """A small PNG file that says it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no picture", "cannot be read"),
        (png(9_000, 9_000), "9000×9000 pixels, too many"),
        (png(50_000, 50_000), "cannot be read"),
        (png(6, 500), "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "cannot be read"),
    ],
    ids=["text", "huge", "bomb", "cut short", "PostScript"],
)
def test_a_bad_picture_is_named(tmp_path, content, message):
    path = folder(tmp_path)
    (tmp_path / "train/cat/bad.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"cat/bad\.png.*{message}"):
        load_dataset("image_folder", path=path, resize=6)


def test_a_pipe_among_pictures_is_not_waited_for(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        os.mkfifo(tmp_path / name / "x.png")
    for mode in ("gray", "auto"):
        with pytest.raises(DataError, match=r"x\.png is no file"):
            load_dataset("image_folder", path=str(tmp_path), mode=mode)


def test_folders_that_hold_something_else(tmp_path):
    path = folder(tmp_path)
    (tmp_path / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="bird holds no picture"):
        load_dataset("image_folder", path=path)
    picture(tmp_path / "train/bird/x.png", np.zeros((6, 5), np.uint16))
    with pytest.raises(DataError, match=r"x\.png has more than 8 bits"):
        load_dataset("image_folder", path=path, mode="gray")
    (tmp_path / "train/bird/x.png").unlink()
    picture(tmp_path / "train/bird/x.png", np.zeros((6, 5), np.uint8))
    picture(tmp_path / "test/fish/x.png", np.zeros((6, 5), np.uint8))
    with pytest.raises(DataError, match="fish: there is no"):
        load_dataset("image_folder", path=path)
    with pytest.raises(DataError, match="no client before '_x'"):
        load_dataset("image_folder", path=folder(tmp_path / "other"), client="_x")
    for params in ({"resize": 0}, {"test": 0.5}):
        with pytest.raises(ParameterError):
            load_dataset("image_folder", path=path, **params)
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(DataError, match="holds no folders"):
        load_dataset("image_folder", path=str(empty))
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("image_folder", path=str(tmp_path / "nowhere"))


def test_too_many_pixels_in_all(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "MAX_NUMBERS", 100)
    with pytest.raises(DataError, match="too many; resize"):
        load_dataset("image_folder", path=folder(tmp_path))


# --- given from Python ------------------------------------------------------------------------------


class Pairs(torch.utils.data.Dataset):
    """A data set of PyTorch as users write them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return torch.from_numpy(self.images[i]), int(LABELS[i])


def whole(data):
    """Inputs and labels of training and test data, in the order of the inputs."""
    inputs = torch.cat([data.train.pixels, data.test.pixels]).flatten(1)
    return sorted(
        zip(inputs.tolist(), torch.cat([data.train.labels, data.test.labels]).tolist(), strict=True)
    )


TENSORS = torch.from_numpy(POINTS).float(), torch.from_numpy(LABELS)
ALIKE = {
    "arrays": (POINTS, LABELS),
    "lists": [POINTS.tolist(), LABELS.tolist()],
    "tensors": TENSORS,
    "four": (POINTS[:20], LABELS[:20], POINTS[20:], LABELS[20:]),
    "pairs": ((POINTS[:20], LABELS[:20]), (POINTS[20:], LABELS[20:])),
    "TensorDataset": torch.utils.data.TensorDataset(*TENSORS),
    "LabeledData": LabeledData(*TENSORS),
    "Samples": (Samples(TENSORS[0][:20], TENSORS[1][:20]), Samples(TENSORS[0][20:], TENSORS[1][20:])),
    "mapping": {"x": POINTS, "y": LABELS},
}


@pytest.mark.parametrize("kind", ALIKE)
def test_every_form_of_the_same_data_gives_the_same_samples(kind):
    data = as_dataset(ALIKE[kind], "given:mine")
    assert whole(data) == sorted(zip(POINTS.astype(np.float32).tolist(), LABELS.tolist(), strict=True))
    assert data.name == "given:mine"


def test_a_pair_of_pytorch_data_sets(monkeypatch):
    monkeypatch.setitem(GIVEN, "mine", (Pairs(IMAGES), Pairs(IMAGES[:6])))
    expected = image_dataset("given:mine", (IMAGES[:, None], LABELS), (IMAGES[:6, None], LABELS[:6]), 3)
    assert load_dataset("given:mine").fingerprint == expected.fingerprint
    with pytest.raises(ParameterError, match="leave `test` out"):
        load_dataset("given:mine", test=0.3)


def test_given_arrays_are_copied():
    inputs = POINTS.astype(np.float32)
    data = as_dataset((inputs, LABELS, inputs, LABELS), "x")
    before = data.train.pixels.clone()
    inputs[:] = 0
    assert torch.equal(data.train.pixels, before)


def test_parameters_of_given_data(monkeypatch):
    monkeypatch.setitem(GIVEN, "mine", (POINTS, POINTS))
    data = load_dataset("given:mine", task="regression", test=0.5, normalize=False)
    assert (data.num_classes, data.task, data.mean, data.std) == (2, "regression", (0.0,), (1.0,))
    assert len(data.test.labels) == 15
    with pytest.raises(ParameterError, match="did you mean 'task'"):
        load_dataset("given:mine", tsk="regression")


def test_a_function_may_return_arrays(monkeypatch):
    monkeypatch.setitem(GIVEN, "make", lambda count=30: (POINTS[:count], LABELS[:count]))
    assert len(load_dataset("given:make", count=20).train.labels) == 16


def test_a_function_that_fails_is_named_with_its_line(monkeypatch):
    def broken():
        raise KeyError("age")

    monkeypatch.setitem(GIVEN, "broken", broken)
    with pytest.raises(
        ParameterError, match=r"data set given:broken failed: KeyError: 'age' \(.*test_own_files\.py:\d+\)"
    ):
        load_dataset("given:broken")


class Words(torch.utils.data.Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return "word", 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "is a int, not a Dataset; give a Dataset, arrays"),
        ((1, 2, 3), "is a tuple, not a Dataset"),
        (Words(), "holds a str where an array is expected"),
        (torch.utils.data.TensorDataset(torch.zeros(0, 2), torch.zeros(0)), "is empty"),
        (torch.utils.data.TensorDataset(torch.zeros(3, 2)), "not a pair"),
        (([[1, 2], [3]], [0, 1]), "one shape"),
        ((POINTS, LABELS[:4]), "30 inputs, but 4 labels"),
        ({"x": POINTS}, "`inputs` and `labels`"),
    ],
)
def test_what_cannot_be_data(value, message):
    with pytest.raises((DataError, ParameterError), match=message):
        as_dataset(value, "mine")


class Cropped(torch.utils.data.Dataset):
    """What a random transform makes of a data set: each reading gives another sample."""

    def __init__(self, of_labels):
        self.of_labels = of_labels

    def __len__(self):
        return 30

    def __getitem__(self, index):
        noise = float(rng.random())
        return np.full(2, 0.0 if self.of_labels else noise), index % 3 + (noise if self.of_labels else 0)


@pytest.mark.parametrize("of_labels", [False, True])
def test_a_data_set_that_draws_its_samples_is_refused(of_labels):
    with pytest.raises(DataError, match=r"mine: sample 0 of Cropped is another one when it is read again"):
        as_dataset(Cropped(of_labels), "mine")
    if not of_labels:
        with pytest.raises(DataError, match=r"mine \(test\): sample 0 of Cropped"):
            as_dataset(
                (torch.utils.data.TensorDataset(torch.rand(9, 2), torch.arange(9)), Cropped(False)), "mine"
            )


# --- libraries --------------------------------------------------------------------------------------


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_emnist(root, split="letters", first=1, count=26):
    raw = root / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    arrays = {}
    for part, n in (("train", 60), ("test", 30)):
        images, labels = (
            rng.integers(0, 256, (n, 28, 28), np.uint8),
            (np.arange(n) % count + first).astype(np.uint8),
        )
        arrays[part] = images, labels
        (raw / f"emnist-{split}-{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"emnist-{split}-{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return arrays


def test_emnist_as_torchvision_reads_it(tmp_path):
    from fedguard.simulation.vision import datasets as torchvision_datasets

    write_emnist(tmp_path)
    data = load_dataset("torchvision:EMNIST", tmp_path, split="letters")
    theirs = torchvision_datasets.EMNIST(str(tmp_path), split="letters", train=True)
    assert np.array_equal((data.train.pixels[:, 0] * 255).round().numpy(), theirs.data.numpy())
    assert data.train.labels.tolist() == (theirs.targets - 1).tolist()
    assert (data.num_classes, data.input_shape) == (26, (1, 28, 28))
    assert data.class_names == tuple(theirs.classes[1:]), "the first is for a label that does not occur"
    with pytest.raises(DataError, match=r"emnist-balanced-train-images-idx3-ubyte.*is missing"):
        load_dataset("torchvision:EMNIST", tmp_path)


def test_classes_are_named_as_torchvision_names_them():
    from fedguard.simulation.datasets import mnist, torchvision_sets
    from fedguard.simulation.vision import datasets as torchvision_datasets

    for split in ("balanced", "byclass", "bymerge", "digits", "mnist"):
        theirs = torchvision_datasets.EMNIST.classes_split_dict[split]
        assert torchvision_sets._characters(split) == tuple(theirs)
    assert list(mnist.CLOTHES) == torchvision_datasets.FashionMNIST.classes


def test_letters_are_numbered_from_1_in_their_files(tmp_path):
    write_emnist(tmp_path, first=0)
    with pytest.raises(DataError, match="numbered from 1"):
        load_dataset("torchvision:EMNIST", tmp_path, split="letters")


def write_cifar100(root):
    folder = root / "cifar-100-python"
    folder.mkdir()
    arrays = {}
    for part, n in (("train", 200), ("test", 100)):
        data, fine = rng.integers(0, 256, (n, 3072), dtype=np.uint8), [k % 100 for k in range(n)]
        arrays[part] = data, fine
        batch = {
            "data": data,
            "fine_labels": fine,
            "coarse_labels": [k // 5 for k in fine],
            "filenames": ["x"] * n,
        }
        (folder / part).write_bytes(pickle.dumps(batch, 2))
    return arrays


def test_cifar100_is_read_without_unpickling(tmp_path):
    arrays = write_cifar100(tmp_path)
    data = load_dataset("torchvision:CIFAR100", tmp_path)
    assert data.train.labels.tolist() == arrays["train"][1]
    assert np.array_equal((data.test.pixels * 255).round().flatten(1).numpy(), arrays["test"][0])
    coarse = load_dataset("torchvision:CIFAR100", tmp_path, labels="coarse")
    assert (data.num_classes, coarse.num_classes) == (100, 20)
    assert data.class_names == (), "the file of names is not needed"
    meta = {"fine_label_names": [f"f{k}" for k in range(100)], "coarse_label_names": ["one"]}
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps(meta, 2))
    assert load_dataset("torchvision:CIFAR100", tmp_path).class_names[99] == "f99"
    assert load_dataset("torchvision:CIFAR100", tmp_path, labels="coarse").class_names == ()
    assert coarse.train.labels.tolist() == [k // 5 for k in arrays["train"][1]]

    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    (tmp_path / "cifar-100-python" / "test").write_bytes(pickle.dumps({"data": Bomb(), "fine_labels": []}))
    with pytest.raises(DataError, match="not allowed"):
        load_dataset("torchvision:CIFAR100", tmp_path)


class Pictures(list):
    """Pictures and labels as torchvision has them."""

    classes = (("tench", "Tinca tinca"), "radio", "church")


def test_other_data_sets_of_torchvision_are_read_by_torchvision(tmp_path, monkeypatch):
    from PIL import Image

    from fedguard.simulation.vision import datasets as torchvision_datasets

    asked = []

    def svhn(root, split, download):
        asked.append((root, split, download))
        picture = lambda: Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8))  # noqa: E731
        return Pictures([(picture(), k % 3) for k in range(12)])

    monkeypatch.setattr(torchvision_datasets, "SVHN", svhn)
    data = load_dataset("torchvision:SVHN", tmp_path, resize=6)
    assert (data.input_shape, data.num_classes) == ((3, 6, 6), 3)
    assert data.class_names == ("tench, Tinca tinca", "radio", "church")
    assert asked == [(str(tmp_path), "train", False), (str(tmp_path), "test", False)], "nothing is downloaded"
    monkeypatch.delenv("FEDGUARD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_dataset("torchvision:SVHN")
    assert asked[-1] == (str(tmp_path / "fedguard/data"), "test", True)


def test_missing_files_of_torchvision_and_unknown_names(tmp_path):
    with pytest.raises(DataError, match=r"torchvision:SVHN: .* not found or corrupted; check"):
        load_dataset("torchvision:SVHN", tmp_path)
    with pytest.raises(ParameterError, match="did you mean 'EMNIST'"):
        load_dataset("torchvision:EMNST")
    with pytest.raises(ParameterError, match="did you mean 'split'"):
        load_dataset("torchvision:EMNIST", splt="letters")


def test_openml_is_a_table(tmp_path, monkeypatch):
    import pandas as pd
    import sklearn.datasets
    from sklearn.utils import Bunch

    frame = pd.DataFrame(
        {"x": range(20), "c": pd.Categorical(list("ab") * 10), "y": pd.Categorical(list("nm") * 10)}
    )
    asked = []

    def fetch(**params):
        asked.append(params)
        if params["data_id"] == 9:
            raise OSError("no route to host")
        return Bunch(frame=frame, target_names=["y"])

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load_dataset("openml:61")
    assert (data.name, data.input_shape, data.num_classes) == ("openml:61", (3,), 2)
    assert asked[0]["data_id"] == 61
    assert asked[0]["data_home"].startswith(str(tmp_path))
    assert load_dataset("openml:61", label="x", task="regression").num_classes == 1
    with pytest.raises(DataError, match=r"openml:9 could not be read: no route to host.*network"):
        load_dataset("openml:9")
    with pytest.raises(ParameterError, match="openml:iris: write the data set's number"):
        load_dataset("openml:iris")
    frame.loc[3, "c"] = None
    with pytest.raises(DataError, match="openml:61: row 4: column 'c': a value is missing"):
        load_dataset("openml:61")


class Split:
    """A split as the library ``datasets`` returns it."""

    def __init__(self, **columns):
        self.columns = columns
        names = type("ClassLabel", (), {"names": ["no", "yes"]})()
        self.features = {name: names if name == "label" else None for name in columns}

    column_names = property(lambda self: list(self.columns))

    def __getitem__(self, name):
        return self.columns[name]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The library ``datasets``, or what is used of it."""
    import types

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = types.ModuleType("datasets")
    monkeypatch.setitem(sys.modules, "datasets", library)
    library.asked = []

    def load(name, config, revision, cache_dir):
        library.asked.append((name, config, revision))
        return library.parts

    library.load_dataset = load
    return library


def test_pictures_of_the_hub(hub):
    from PIL import Image

    images = [Image.fromarray(image) for image in IMAGES]
    labels = [k % 2 for k in range(30)]
    hub.parts = {
        "train": Split(image=images, label=labels, who=LABELS.tolist()),
        "test": Split(image=images[:4], label=labels[:4]),
    }
    data = load_dataset("huggingface:owner/name", input="image", client="who", revision="abc")
    assert hub.asked == [("owner/name", None, "abc")]
    assert np.array_equal((data.train.pixels[:, 0] * 255).round().numpy(), IMAGES)
    assert data.clients.tolist() == LABELS.tolist()
    assert len(data.test.labels) == 4
    with pytest.raises(ParameterError, match="no column 'imag', did you mean 'image'"):
        load_dataset("huggingface:owner/name", input="imag")
    with pytest.raises(ParameterError, match="say which of them is the input"):
        load_dataset("huggingface:owner/name")
    with pytest.raises(ParameterError, match="no split 'tets', did you mean 'test'"):
        load_dataset("huggingface:owner/name", input="image", test="tets")
    hub.parts["train"].columns["label"][3] = -1
    with pytest.raises(DataError, match=r"huggingface:owner/name: row 4: the label is -1"):
        load_dataset("huggingface:owner/name", input="image")


def test_columns_and_texts_of_the_hub(hub):
    hub.parts = {"train": Split(a=list(range(20)), b=list("xy") * 10, label=list("np") * 10)}
    data = load_dataset("huggingface:owner/name", input=["a", "b"])
    assert data.input_shape == (3,)
    hub.parts["train"].features["label"] = None
    numbers = load_dataset("huggingface:owner/name", input="a")
    assert sorted(numbers.train.labels.unique().tolist()) == [0, 1]
    with pytest.raises(DataError, match="row 1: the input is str, not a picture or numbers"):
        load_dataset("huggingface:owner/name", input="b")


def test_the_library_itself_reads_a_folder(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets")
    library.disable_progress_bars()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "own").mkdir()
    rows = "".join(f"{k},{'xy'[k % 2]},s{k % 3},{k % 2}\n" for k in range(30))
    (tmp_path / "own" / "train.csv").write_text("a,b,who,label\n" + rows)
    data = load_dataset(f"huggingface:{tmp_path / 'own'}", input=["a", "b"], client="who")
    own = load_dataset("csv", path=str(tmp_path / "own" / "train.csv"), label="label", client="who")
    assert data.fingerprint == own.fingerprint
    (tmp_path / "own" / "own.py").write_text("raise SystemExit('code ran')\n")
    with pytest.raises(DataError, match="could not be read"):  # no code runs
        load_dataset(f"huggingface:{tmp_path / 'own'}", input="a")


def test_the_hub_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[huggingface\]"'):
        load_dataset("huggingface:owner/name")
