"""A file of one's own to predict: an image, a folder of images, a NumPy array or a table of numbers."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dualprop.data._images import extensions
from dualprop.data._tree import LeftOut, images_below
from dualprop.data.folder import WHITE, Reader
from dualprop.data.form import Form
from dualprop.errors import DataError
from dualprop.files import open_regular

TOGETHER = 100
"""Images, or rows, that are in memory at once."""

LARGEST = 2**36
"""Bytes of an array or a table."""

T = TypeVar("T")


def read_inputs(path: Path, form: Form, background: int = WHITE) -> Iterator[tuple[list[str], Tensor]]:
    """The samples in a file, some at a time.

    Args:
        path: an image; a folder, whose images are read in the order of their names, those in the folders below as
            well; an array, .npy, of shape (N, ...); or a table of numbers, .csv, a row for each sample, with or
            without a line of names.
        form: what the net takes. Images are brought to its size and colours.
        background: the grey level that transparent images are laid on.

    Returns:
        An iterator of names, those of files or numbers from 1 on, and samples of shape (B, ...).

    Raises:
        DataError: for a file that is missing, of another kind, damaged or without samples.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "two.csv"
        >>> _ = file.write_text("a,b,c\\n1,2,3\\n4,5,6\\n")
        >>> [(names, x.tolist()) for names, x in read_inputs(file, Form((3,), False, (0.0,), (1.0,), ()))]
        [(['1', '2'], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])]
    """
    kind = path.suffix.lower()
    if path.is_dir():
        left_out = LeftOut()
        files = sorted(images_below(path, path.resolve(), left_out), key=lambda file: file.relative_to(path))
        left_out.tell(path)
        read = _images(path, files, form, background)
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder")
    elif kind in extensions():
        read = _images(path.parent, [path], form, background)
    elif kind == ".npy":
        read = _array(path)
    elif kind == ".csv":
        read = _table(path)
    else:
        raise DataError(f"{path}: must be an image, a folder of images, .npy or .csv")
    first = next(read, None)
    if first is None:
        raise DataError(f"{path}: holds no sample that is read")
    return itertools.chain([first], read)


def _images(folder: Path, files: list[Path], form: Form, background: int) -> Iterator[tuple[list[str], Tensor]]:
    if not form.pixels or len(form.shape) != 3 or form.shape[0] not in (1, 3):
        raise DataError(f"{folder}: images, but the net takes samples of shape {form.shape} that are none")
    channels, height, width = form.shape
    reader = Reader(folder, "L" if channels == 1 else "RGB", height if height == width else None, background)
    for some in _some(files):
        yield [str(file.relative_to(folder)) for file in some], torch.stack([reader.pixels(file) for file in some])


def _array(path: Path) -> Iterator[tuple[list[str], Tensor]]:
    try:
        with open_regular(path, LARGEST):
            array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no array that can be read ({' '.join(str(error).split())})") from None
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise DataError(f"{path}: must hold numbers of shape (samples, ...), not {array.dtype} of {array.shape}")
    for numbers in _some(range(len(array))):
        some = np.array(array[numbers[0] : numbers[-1] + 1])
        x = torch.from_numpy(some if some.dtype == np.uint8 else some.astype(np.float32))
        yield [str(number + 1) for number in numbers], x


def _table(path: Path) -> Iterator[tuple[list[str], Tensor]]:
    try:
        with open_regular(path, LARGEST) as opened:
            for some in _some(enumerate(_numbers(path, csv.reader(io.TextIOWrapper(opened, "utf-8-sig"))), 1)):
                yield [str(number) for number, _ in some], torch.tensor([row for _, row in some])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no table that can be read ({' '.join(str(error).split())})") from None


def _numbers(path: Path, rows: Iterator[list[str]]) -> Iterator[list[float]]:
    """Rows of numbers, all of one length; empty ones and a first row of names are left out."""
    width = 0
    for line, row in enumerate(rows, 1):
        try:
            numbers = [float(cell) for cell in row]
        except ValueError:
            if line == 1:
                continue
            raise DataError(f"{path}: line {line} holds something else than numbers") from None
        width = width or len(numbers)
        if numbers and len(numbers) != width:
            raise DataError(f"{path}: line {line} holds {len(numbers)} numbers, but those before it {width}")
        if numbers:
            yield numbers


def _some(items: Iterable[T]) -> Iterator[list[T]]:
    """As many as are read together, at a time."""
    left = iter(items)
    while some := list(itertools.islice(left, TOGETHER)):
        yield some
