"""IDX files, compressed or not, as MNIST and its relatives are published in."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dualprop.errors import DataError
from dualprop.files import read_regular

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
        content = read_regular(path, LARGEST)
        return _read(_unpacked(content) if content[:2] == _GZIP else content, sample)
    except (OSError, zlib.error, ValueError) as error:
        raise DataError(f"{path}: damaged or not an IDX file of shape (N, {_comma(sample)}) ({error})") from None


def _unpacked(content: bytes) -> bytes:
    """What is compressed; zlib reads it many times faster than the module gzip, whose loops a file could fill."""
    machine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    unpacked = machine.decompress(content, LARGEST)
    if not machine.eof:
        raise ValueError(
            "it is cut short" if not machine.unconsumed_tail else f"it holds more than {LARGEST:,} bytes"
        )
    if machine.unused_data.strip(b"\0"):
        raise ValueError("something is behind its end")
    return unpacked


def _read(content: bytes, sample: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    magic, start = content[:4], 4 * (2 + len(sample))
    if magic != bytes((0, 0, 8, 1 + len(sample))):
        raise ValueError(f"it begins with {magic.hex()}")
    if len(content) < start:
        raise ValueError("its header is cut short")
    shape = struct.unpack(f">{1 + len(sample)}I", content[4:start])
    size, held = math.prod(shape), len(content) - start
    if shape[1:] != sample or size > LARGEST:
        raise ValueError(f"its header says ({_comma(shape)})")
    if held != size:
        raise ValueError(f"it holds {'more' if held > size else 'fewer'} than the {size:,} bytes it says")
    return np.frombuffer(bytearray(content[start:]), np.uint8).reshape(shape)


def _comma(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
