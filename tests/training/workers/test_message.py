"""Messages: what goes in comes out, and what is damaged is refused by what is wrong with it."""

import struct
import zlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualprop.training.workers.message import HEADER, Kind, Message, RefusedError, unpacked


def one(dtype=torch.float32, shape=(2, 3)):
    return Message(Kind.MEAN, 2**40, 7, torch.arange(6).reshape(shape).to(dtype), 3)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int64]
)
@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 2, 1, 3)])
def test_a_message_comes_back(dtype, shape):
    message, got = one(dtype, shape), unpacked(one(dtype, shape).packed())
    assert got[:3] == message[:3]
    assert got.part == 3
    assert got.tensor.dtype is dtype
    assert torch.equal(got.tensor, message.tensor)


def test_by_its_definition():
    """The header written down field by field."""
    body = struct.pack("<2f", 1.5, -2.0)
    fields = b"dpwk" + bytes([1, 2, 1, 1]) + struct.pack("<IQI", 4, 9, 0)
    shape = struct.pack("<8I", 2, 0, 0, 0, 0, 0, 0, 0)
    checksum = zlib.crc32(fields + bytes(4) + shape + body)
    message = Message(Kind.MEAN, 9, 4, torch.tensor([1.5, -2.0]))
    assert message.packed() == fields + struct.pack("<I", checksum) + shape + body


def test_a_part_of_a_tensor_and_one_in_another_order():
    whole = torch.arange(24.0).reshape(4, 6)
    for tensor in (whole[1:3], whole.T, whole[:, ::2], torch.zeros(0, 3), torch.tensor(2.0)):
        assert torch.equal(unpacked(Message(Kind.MEAN, 0, 0, tensor).packed()).tensor, tensor)


@given(st.data())
def test_one_bit_changed_is_refused(data):
    packed = bytearray(one().packed())
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RefusedError, match=r"^message: "):
        unpacked(bytes(packed))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(RefusedError, match=r"^message: "):
        unpacked(data)


def checked(packed):
    """With the checksum that belongs to it."""
    packed = bytearray(packed)
    packed[24:28] = bytes(4)
    packed[24:28] = struct.pack("<I", zlib.crc32(bytes(packed)))
    return bytes(packed)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (4, 2, "of version 2, but this is version 1"),
        (5, 99, "kind 99"),
        (6, 77, "dtype 77"),
        (7, 9, "9 dimensions"),
    ],
)
def test_what_is_not_known_is_named(at, value, said):
    packed = bytearray(one().packed())
    packed[at] = value
    with pytest.raises(RefusedError, match=said):
        unpacked(checked(packed))


def test_shorter_or_longer_than_its_shape():
    for packed in (one().packed()[:-4], one().packed() + bytes(4)):
        with pytest.raises(RefusedError, match="bytes of numbers, but of shape"):
            unpacked(checked(packed))
    with pytest.raises(RefusedError, match=f"but a header has {HEADER}"):
        unpacked(b"dpwk")


def test_words():
    message = unpacked(Message.of(Kind.REPORT, {"updates": 3, "name": "layer 1"}).packed())
    assert message.words == {"updates": 3, "name": "layer 1"}
    with pytest.raises(RefusedError, match="words"):
        _ = one(torch.uint8).words
