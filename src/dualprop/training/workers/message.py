"""What workers tell each other: one part with a fixed header, never a pickled object.

magic "dpwk", version, kind, dtype, dimensions    4 bytes and four of one
layer, batch, part                                32, 64 and 32 bits
checksum                                          32 bits: CRC-32 of all else
shape                                             eight times 32 bits
numbers                                           in the order of their indices, little-endian
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualprop.errors import DualpropError
from dualprop.files import parse_json

VERSION = 1
_MAGIC = b"dpwk"
_HEADER = struct.Struct("<4s4BIQII8I")
_DIMENSIONS = 8
_CHECKSUM = struct.Struct("<I")
_AT = _HEADER.size - _DIMENSIONS * 4 - _CHECKSUM.size
"""Where the checksum stands."""

HEADER = _HEADER.size
"""Bytes before the numbers."""

_DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.bfloat16,
    4: torch.float16,
    5: torch.uint8,
    6: torch.int64,
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class Kind(IntEnum):
    """What a message is; those from `HELLO` on go between a worker and the driver."""

    FEEDBACK = 1
    MEAN = 2
    HELLO = 16
    START = 17
    NEIGHBOURS = 18
    REPORT = 19
    ASK = 20
    WEIGHTS = 21
    SAVE = 22
    SAVED = 23
    STOP = 24
    FAILED = 25


class RefusedError(DualpropError):
    """Bytes that are no message of this version."""


class Message(NamedTuple):
    """One message.

    Attributes:
        kind: what it is.
        batch: the number of the batch, counted from 0 over all epochs.
        layer: the layer that the tensor belongs to: whose mean it is, or whom it feeds back to.
        tensor: the mean z̄_k, or the feedback A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-); shape (B, ...).
        part: its number, where several belong together; of a mean or a feedback the microseconds that a batch
            takes the slowest worker on the side that it comes from.

    Example:
        >>> message = Message(Kind.MEAN, 7, 2, torch.ones(2, 3))
        >>> unpacked(message.packed()).batch, len(message.packed()) - HEADER
        (7, 24)
    """

    kind: Kind
    batch: int
    layer: int
    tensor: Tensor
    part: int = 0

    def packed(self) -> bytes:
        """The bytes of it."""
        tensor = self.tensor.detach().contiguous()
        shape = (*tensor.shape, *(0,) * (_DIMENSIONS - tensor.ndim))
        fields = (self.kind, _CODES[tensor.dtype], tensor.ndim, self.layer, self.batch, self.part)
        body = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        kind, dtype, ndim, layer, batch, part = fields
        header = bytearray(_HEADER.pack(_MAGIC, VERSION, kind, dtype, ndim, layer, batch, part, 0, *shape))
        _CHECKSUM.pack_into(header, _AT, zlib.crc32(body, zlib.crc32(header)))
        return bytes(header) + body

    @classmethod
    def of(cls, kind: Kind, words: Mapping[str, Any]) -> Message:
        """One that says plain values in place of a tensor's numbers."""
        text = bytearray(json.dumps(words, allow_nan=True).encode())
        return cls(kind, 0, 0, torch.frombuffer(text, dtype=torch.uint8))

    @property
    def words(self) -> dict[str, Any]:
        """What `of` was given.

        Raises:
            RefusedError: if it says no such thing.
        """
        try:
            said = parse_json(self.tensor.numpy().tobytes())
        except ValueError as error:
            raise RefusedError(f"message: no words ({error})") from None
        if not isinstance(said, dict):
            raise RefusedError("message: no words by name")
        return said


def unpacked(data: bytes | memoryview) -> Message:
    """The message that these bytes are; its tensor has memory of its own.

    Raises:
        RefusedError: if they are none, saying what is wrong with them.
    """
    if len(data) < HEADER:
        raise RefusedError(f"message: {len(data)} bytes, but a header has {HEADER}")
    magic, version, kind, dtype, ndim, layer, batch, part, checksum, *shape = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise RefusedError("message: not one of dualprop's workers")
    if version != VERSION:
        raise RefusedError(f"message: of version {version}, but this is version {VERSION}")
    if kind not in Kind._value2member_map_ or dtype not in _DTYPES or ndim > _DIMENSIONS:
        raise RefusedError(f"message: kind {kind}, dtype {dtype}, {ndim} dimensions: unknown")
    body, sizes = bytearray(data[HEADER:]), shape[:ndim]
    if any(shape[ndim:]) or math.prod(sizes) * _DTYPES[dtype].itemsize != len(body):
        raise RefusedError(f"message: {len(body)} bytes of numbers, but of shape {tuple(sizes)}")
    header = bytearray(data[:HEADER])
    _CHECKSUM.pack_into(header, _AT, 0)
    if zlib.crc32(body, zlib.crc32(header)) != checksum:
        raise RefusedError("message: damaged, its checksum is another")
    numbers = torch.frombuffer(body, dtype=_DTYPES[dtype]) if body else torch.empty(0, dtype=_DTYPES[dtype])
    return Message(Kind(kind), batch, layer, numbers.reshape(sizes), part)


def check_size(largest: int, numbers: int) -> None:
    """Refuse messages of so many numbers of at most eight bytes if they are larger than agreed.

    Raises:
        DualpropError: naming both sizes.
    """
    if (size := HEADER + 8 * numbers) > largest:
        raise DualpropError(
            f"largest={largest}: must be at least {size}, the bytes of a state of a batch or of a weight"
        )
