"""Small files that are read and replaced as a whole, and one line where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from dualprop import files
from dualprop.errors import CheckpointError

SMALL = 2**16
"""Bytes of a file of settings, at most."""
MEASURED = 2**24
"""Of measurements."""


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file.

    Raises:
        CheckpointError: if it cannot be written.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file of text, in UTF-8.

    Raises:
        CheckpointError: if it cannot be written.
    """
    replace_file(path, lambda f: f.write(text.encode("utf-8", "backslashreplace")))


def read_json(path: Path, limit: int = SMALL) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: where it is.
        limit: the most bytes that it may hold.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        values = files.parse_json(files.read_regular(path, limit))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable ({reason(error)})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, it should hold one JSON object")
    return values


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file as a whole, by what is written into an open draft.

    Raises:
        CheckpointError: if it cannot be written.
    """
    try:
        files.replace(path, write)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({reason(error)}); what was there is still there"
        ) from None


def reason(error: Exception) -> str:
    """What went wrong, in a few words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
