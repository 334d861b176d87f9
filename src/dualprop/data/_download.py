"""Download into a temporary folder, so that no half-written file is ever taken for a data set."""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from dualprop.errors import DataError
from dualprop.files import open_regular

LARGEST = 2**28
"""Bytes of an archive: CIFAR's have 170 million. What is larger is none, and not copied."""


@contextmanager
def downloading(name: str, root: Path, files: tuple[str, ...], archives: str) -> Iterator[Path]:
    """Give a folder to download into, and move the files below `root` once that is done.

    Args:
        name: the data set, for the message.
        root: the data root; made if it is not there.
        files: what to move, relative to both folders.
        archives: a pattern of archives below `root`; those already there need not be downloaded.

    Raises:
        DataError: the download failed, or the folder cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=root) as temporary:
            for archive in root.glob(archives):
                copy = Path(temporary) / archive.relative_to(root)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with suppress(OSError), open_regular(archive, LARGEST) as content, copy.open("xb") as copied:
                    shutil.copyfileobj(content, copied)
            yield Path(temporary)
            for file in files:
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(temporary) / file, root / file)
    except (
        OSError,
        RuntimeError,
        http.client.HTTPException,
    ) as error:  # no connection, a wrong checksum, a full or read-only disk
        raise DataError(f"cannot fetch {name} into {root}: {' '.join(str(error).split())}") from None
