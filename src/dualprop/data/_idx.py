"""IDX files, compressed or not, as MNIST and its relatives are published in."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from dualprop.errors import DataError
from dualprop.files import open_regular

LARGEST = 2**27
"""Bytes, of a file and of what it holds: the images of MNIST have 47 million."""

_GZIP = b"\x1f\x8b"


def read_idx(path: Path, sample: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Read unsigned bytes of shape (N, *sample).

    Args:
        path: the file; whether it is compressed is seen from its first bytes.
        sample: the shape of one of them.

    Raises:
        DataError: a file that cannot be read, is damaged, or holds anything else.
    """
    try:
        with open_regular(path, LARGEST) as file:
            compressed = file.read(2) == _GZIP
            file.seek(0)
            return _read(gzip.GzipFile(fileobj=file) if compressed else file, sample)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: damaged or not an IDX file of shape (N, {_comma(sample)}) ({error})") from None


def _read(file: BinaryIO, sample: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    magic = file.read(4)
    if magic != bytes((0, 0, 8, 1 + len(sample))):
        raise ValueError(f"it begins with {magic.hex()}")
    header = file.read(4 * (1 + len(sample)))
    if len(header) < 4 * (1 + len(sample)):
        raise ValueError("its header is cut short")
    shape = struct.unpack(f">{1 + len(sample)}I", header)
    size = math.prod(shape)
    if shape[1:] != sample or size > LARGEST:
        raise ValueError(f"its header says ({_comma(shape)})")
    content = file.read(size + 1)
    if len(content) != size:
        raise ValueError(f"it holds {'more' if len(content) > size else 'fewer'} than the {size:,} bytes it says")
    return np.frombuffer(bytearray(content), np.uint8).reshape(shape)


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
