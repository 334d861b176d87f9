"""A checkpoint in one file: tensors as safetensors, all else as JSON in its header. Nothing in it can run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dualprop.errors import CheckpointError, DualpropError
from dualprop.files import open_regular, parse_json

FORMAT = "dualprop 2"
TENSOR = "$tensor"
LARGEST = 2**40
"""Bytes of a file of tensors. It is mapped, and takes no memory before its shapes have been looked at."""
LARGEST_HEADER = 2**23
"""Bytes of its header: places, shapes and types of all tensors, and the state as JSON. Room for some 30,000."""

Header = dict[str, str]


def dumped(state: Mapping[str, Any]) -> bytes:
    """What a checkpoint file holds.

    Args:
        state: tensors, numbers, words, true, false and None, in lists and in dictionaries by name.

    Raises:
        DualpropError: for anything else.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_without_tensors(state, "", tensors), separators=(",", ":"))
    data: bytes = safetensors.torch.save(tensors, {"format": FORMAT, "state": text})
    try:
        _check_header(data[:8])
    except ValueError as error:
        raise DualpropError(f"state: cannot be written ({error})") from None
    return data


def loaded(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file; its tensors are mapped from the file, and are to be copied.

    Raises:
        CheckpointError: if it is missing, damaged or of another format.
    """
    tensors, header = read_tensors(path)
    if header.get("format") != FORMAT or "state" not in header:
        raise CheckpointError(f"{path}: not a checkpoint of this version of dualprop")
    try:
        state = _with_tensors(parse_json(header["state"]), tensors)
        if not isinstance(state, dict) or tensors:
            raise ValueError("tensors without a place in its state")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error})") from None
    return state


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Header]:
    """The tensors of a safetensors file, mapped from it, and the words in its header.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        with open_regular(path, LARGEST) as opened:
            _check_header(opened.read(8))
            with safetensors.safe_open(_name(opened, path), "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing") from None
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({str(error) or type(error).__name__})") from None


def _name(opened: BinaryIO, path: Path) -> str | Path:
    """What an open file is called, whatever has its own name by now, and be that no Unicode."""
    name = f"/dev/fd/{opened.fileno()}"
    return name if os.path.exists(name) else path


def _check_header(start: bytes) -> None:
    """Refuse a file whose header would take long to read, and many times its size."""
    if (size := int.from_bytes(start, "little")) > LARGEST_HEADER:
        raise ValueError(f"a header of {size:,} bytes, more than {LARGEST_HEADER:,}")


def written_tensors(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """What a safetensors file of these holds."""
    data: bytes = safetensors.torch.save({name: _own(tensor) for name, tensor in tensors.items()}, dict(header))
    return data


def _own(tensor: Tensor) -> Tensor:
    """A copy in the processor's memory that shares nothing and lies in the order of its indices."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _without_tensors(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON holds it; its tensors go into `tensors`, under the names that stand for them."""
    if isinstance(value, Tensor):
        while place in tensors:
            place += "'"
        tensors[place] = _own(value)
        return {TENSOR: place}
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or name == TENSOR:
                raise DualpropError(f"state: {place} has the key {name!r}, but a checkpoint keeps things by name")
        return {name: _without_tensors(item, f"{place}/{name}", tensors) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{place}/{number}", tensors) for number, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise DualpropError(
        f"state: {place} is of type {type(value).__name__}, but a checkpoint keeps tensors, numbers and words, in "
        "lists and in dictionaries by name"
    )


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse; takes every tensor out of `tensors` that has a place."""
    if isinstance(value, dict):
        if TENSOR in value:
            return tensors.pop(value[TENSOR])
        return {name: _with_tensors(item, tensors) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
