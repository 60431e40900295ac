"""Folders of pictures as a data set: one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ...core.files import is_file
from .arrays import Arrays, from_arrays
from .base import Dataset
from .files import own_folder
from .split import TEST_SHARE
from .table import wrong

#: The formats that are read: those that Pillow decodes by itself.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
#: The most pixels of one picture, before it is decoded: a small file may hold a huge one.
MAX_PIXELS = 2**26
#: The most numbers of a data set: 8 GiB of float32.
MAX_NUMBERS = 2**31

Mode = Literal["auto", "gray", "rgb"]


def load_image_folder(
    path: str,
    resize: int | tuple[int, int] | None = None,
    mode: Mode = "auto",
    test: float | None = None,
    client: str | None = None,
) -> Dataset:
    """Pictures of your own: ``train/CLASS/*.png`` and ``test/CLASS/*.png``, or ``CLASS/*.png``.

    Classes are numbered in the alphabetic order of their folders, pictures come in the order of their names.

    Args:
        path: the folder; relative to the current folder.
        resize: height and width, or one number for both; needed if the pictures differ.
        mode: "gray" or "rgb"; "auto" is gray if all pictures of the training part are.
        test: the share of test samples, 0.2 by default, if there is no folder ``test``.
        client: what ends a client's name in the names of files: "_" makes ``ward3_0001.png`` a picture of
            the client ward3.

    Raises:
        DataError: a picture cannot be read, or differs in shape; names the file.
        ParameterError: a parameter does not fit.
    """
    root = own_folder(path)
    size = (resize, resize) if isinstance(resize, int) else resize
    if size is not None and not all(1 <= side <= 4096 for side in size):
        raise wrong("resize", f"{resize} is not a size in pixels between 1 and 4096")
    has_parts = (root / "train").is_dir() and (root / "test").is_dir()
    if has_parts and test is not None:
        raise wrong("test", f"{root} has a folder test; leave `test` out")
    train = _found(root / "train" if has_parts else root)
    names = sorted(train)
    held = _found(root / "test") if has_parts else {}
    unknown = sorted(held.keys() - train.keys())
    if unknown:
        raise DataError(f"{root / 'test' / unknown[0]}: there is no {root / 'train' / unknown[0]}")
    gray = mode == "gray" or (mode == "auto" and all(_is_gray(p) for files in train.values() for p in files))
    first = _read(train, names, size, gray, client)
    if not has_parts:
        return from_arrays(
            "image_folder", first, TEST_SHARE if test is None else test, classes=len(names), class_names=names
        )
    second = _read(held, names, size, gray, None)
    return from_arrays("image_folder", first, second, class_names=names)


def _found(root: Path) -> dict[str, list[Path]]:
    """Class → its pictures."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {
        folder.name: sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) for folder in folders
    }
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise DataError(
            f"{root / empty[0]} holds no picture ({', '.join(sorted(SUFFIXES))}); add some or remove it"
        )
    if not found:
        raise DataError(f"{root} holds no folders; each class needs a folder of pictures")
    return found


def _read(
    classes: dict[str, list[Path]],
    names: list[str],
    size: tuple[int, int] | None,
    gray: bool,
    client: str | None,
) -> Arrays:
    files = [path for name in names for path in classes.get(name, ())]
    labels = [k for k, name in enumerate(names) for _ in classes.get(name, ())]
    images: NDArray[np.uint8] | None = None
    for i, path in enumerate(files):
        image = read_image(path, size, gray)
        if images is None:
            if len(files) * image.size > MAX_NUMBERS:
                raise DataError(
                    f"{path.parent.parent}: {len(files)} pictures of {_size(image)} are too many; resize"
                )
            images = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(
                f"{path} has {_size(image)} pixels, {files[0]} {_size(images[0])}; set `resize`, for example "
                "resize: 32"
            )
        images[i] = image
    assert images is not None  # noqa: S101 - every class has pictures
    clients = None if client is None else np.array([_client(path, client) for path in files])
    return Arrays(str(files[0].parent.parent), images, np.array(labels), clients, lambda i: str(files[i]))


def _client(path: Path, end: str) -> str:
    name, found, _ = path.stem.partition(end)
    if not found or not name:
        error = DataError(f"{path}: the name has no client before {end!r}; rename it, or leave `client` out")
        error.key = "client"
        raise error
    return name


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def _open(path: Path) -> Any:
    from PIL import Image

    if not is_file(path):  # opening a pipe would wait for ever
        raise DataError(f"{path} is no file; remove it")
    try:
        image = Image.open(path, formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{path} has {image.width}×{image.height} pixels, too many for a sample; make it smaller"
            )
    except DataError:
        raise
    except Exception as error:  # damaged pictures raise almost any exception
        raise DataError(f"{path} cannot be read: {error}; replace or remove it") from None
    return image


def _is_gray(path: Path) -> bool:
    with _open(path) as image:
        return image.mode in ("1", "L", "LA")


def read_image(path: Path, size: tuple[int, int] | None, gray: bool) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) the pixels of a picture.

    Raises:
        DataError: it cannot be read, is too large, or has more than 8 bits per channel.
    """
    with _open(path) as image:
        if image.mode.startswith(("I", "F")):
            raise DataError(
                f"{path} has more than 8 bits per pixel (mode {image.mode}); convert it to 8 bits"
            )
        try:
            return pixels(image, size, gray)
        except Exception as error:
            raise DataError(f"{path} cannot be read: {error}; replace or remove it") from None


def pixels(image: Any, size: tuple[int, int] | None, gray: bool) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) the pixels of a Pillow image, resized bilinearly."""
    from PIL import Image

    converted = image.convert("L" if gray else "RGB")
    if size is not None and (image.height, image.width) != tuple(size):
        converted = converted.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(converted, dtype=np.uint8)
