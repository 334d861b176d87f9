"""Files that others may have made or may be reading: how they are opened, and how they are replaced.

What is read is a regular file of a limited size, never a pipe or a device that could hang or fill the memory. What
is written goes to a draft of its own first, which takes the file's name when it is whole: no link is followed.
JSON and TOML may not be deeper, nor their numbers longer, than those who read them can take.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import IO, Any, BinaryIO

from dualprop.errors import DualpropError
from dualprop.registry import Registry

_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # no waiting for a pipe's writer
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)  # never through a link
_MORE = 2**16
DRAFT = ".draft"
"""How the names of drafts end."""

DEEPEST = 50
"""Containers within containers."""
DIGITS = 40
"""Of a whole number."""


def open_regular(path: str | os.PathLike[str], limit: int) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    Args:
        path: where it is.
        limit: the most bytes that it may hold.

    Returns:
        What `open(path, "rb")` gives.

    Raises:
        OSError: if there is none, it is a folder, a pipe or a device, or it is larger than that. The message of
            what is refused here is one line without the path.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"12345")
        ...     file.flush()
        ...     open_regular(file.name, limit=4)
        Traceback (most recent call last):
        ...
        OSError: holds 5 bytes, more than the 4 that such a file may have
    """
    _check(os.stat(path), limit)  # before it is opened: opening a device may act on it
    file = os.fdopen(os.open(path, _READ), "rb")
    try:
        _check(os.fstat(file.fileno()), limit)  # what has been opened may be another
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """All that a regular file holds; see `open_regular`."""
    with open_regular(path, limit) as file:
        content = file.read(os.fstat(file.fileno()).st_size + 1)  # what is asked for is allocated: not the limit
        while len(content) <= limit and (more := file.read(_MORE)):
            content += more  # it has grown, or is of those that say they are empty
    _check_size(len(content), limit)
    return content


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file under another name, flush it to disk, and only then give it its name.

    Args:
        path: the file; what is there, a link included, is replaced as a whole and stays if writing fails.
        write: is called with the open draft.

    Raises:
        OSError: if it cannot be written.
    """
    draft = path.with_name(f".{secrets.token_hex(8)}{DRAFT}")
    opened = os.open(draft, _MAKE, 0o666)
    try:
        with os.fdopen(opened, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def remove_drafts(folder: Path) -> None:
    """Remove what a process that was killed while writing has left in a folder where nobody else writes."""
    for draft in folder.glob(f".*{DRAFT}"):
        with contextlib.suppress(OSError):
            draft.unlink()


def parse_json(content: bytes | str) -> Any:
    """What JSON says, in UTF-8.

    Raises:
        ValueError: if it is none, or deeper or with longer numbers than anything of ours.

    Example:
        >>> parse_json('{"a": [1, 2.5]}')
        {'a': [1, 2.5]}
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    return shallow(lambda: json.loads(text, parse_int=_whole))


def shipped(kind: str, package: str) -> Registry[Any]:
    """The TOML files that ship in a package, by name.

    Args:
        kind: what they are, for errors.
        package: where they lie, as it is imported.
    """
    files = sorted(resources.files(package).iterdir(), key=lambda file: file.name)
    return Registry(kind, {f.name.removesuffix(".toml"): f for f in files if f.name.endswith(".toml")})


def read_toml(name: str | Path, known: Registry[Any], limit: int) -> dict[str, Any]:
    """What a TOML file says, one that ships with the package or one's own.

    Args:
        name: of one in `known`, or the path of a file that ends in .toml.
        known: as `shipped` gives them.
        limit: the most bytes that one's own may hold.

    Raises:
        DualpropError: for an unknown name, or a file that is missing or no TOML.
    """
    file = None if str(name).endswith(".toml") else known[str(name)]
    try:
        content = read_regular(name, limit) if file is None else file.read_bytes()
        return _toml(content.decode("utf-8"))
    except FileNotFoundError:
        raise DualpropError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:  # what TOML and Unicode cannot read are ValueErrors
        raise DualpropError(f"{name}: not a {known.kind} ({' '.join(str(error).split())})") from None


def _toml(text: str) -> dict[str, Any]:
    if re.search(_LONG_KEY, text):  # before tomllib takes memory by the square of its length
        raise ValueError(f"a key of more than {DEEPEST} parts")
    tables: dict[str, Any] = shallow(lambda: tomllib.loads(text))
    return tables


_LONG_KEY = rf"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')\s*\.\s*){{{DEEPEST}}}"""


def shallow(parse: Callable[[], Any]) -> Any:
    """What a parser makes of a text that somebody else may have written.

    Args:
        parse: makes it.

    Raises:
        ValueError: for more than `DEEPEST` lists and dictionaries within each other; whatever `parse` raises.

    Example:
        >>> shallow(lambda: json.loads("[" * 100_000))
        Traceback (most recent call last):
        ...
        ValueError: more than 50 lists and tables within each other
    """
    with contextlib.suppress(RecursionError):
        value = parse()
        level = [value] if isinstance(value, dict | list) else []
        for _ in range(DEEPEST + 1):
            inside = (outer.values() if isinstance(outer, dict) else outer for outer in level)
            level = [item for items in inside for item in items if isinstance(item, dict | list)]
            if not level:
                return value
    raise ValueError(f"more than {DEEPEST} lists and tables within each other")


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _check(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a regular file")
    _check_size(status.st_size, limit)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise OSError(f"holds {size:,} bytes, more than the {limit:,} that such a file may have")
