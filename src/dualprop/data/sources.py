"""Where data sets are kept, and what the library knows about each before reading it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from dualprop.data.dataset import Dataset
from dualprop.errors import DataError


@dataclass(frozen=True)
class Source:
    """A data set that can be read from files below a data root.

    Args:
        name: the name it is loaded by.
        summary: what it is, in one line.
        read: reads the data set below a root that has all the files.
        files: the files it needs, relative to the root; none when it comes with an installed library.
        obtain: downloads the files; None when there is nothing to download.
        advice: how to get the files, as the end of an error message.
        names: what a file may be called instead, its own name first.
    """

    name: str
    summary: str
    read: Callable[[Path], Dataset]
    files: tuple[str, ...] = ()
    obtain: Callable[[Path], None] | None = None
    advice: str = ""
    names: Callable[[str], tuple[str, ...]] = lambda file: (file,)

    def missing(self, root: Path) -> list[str]:
        """Return the needed files that are not below `root`."""
        return [file for file in self.files if not located(root, self.names(file)).is_file()]

    def load(self, root: Path) -> Dataset:
        """Read the data set.

        Raises:
            DataError: files that are missing, damaged or not what the name says.
        """
        if missing := self.missing(root):
            raise DataError(f"{self.name}: no {', '.join(missing)} in {root}; {self.advice}")
        try:
            return self.read(root)
        except DataError as error:
            raise DataError("; ".join(filter(None, (str(error), self.advice)))) from None

    def fetch(self, root: Path) -> None:
        """Download the files, unless those that are there can be read and are what the name says.

        Raises:
            DataError: no way to get them, no connection, or nowhere to write them.
        """
        try:
            self.load(root)
        except DataError:
            if self.obtain is None:
                raise
            self.obtain(root)
            self.load(root)


def located(root: Path, names: tuple[str, ...]) -> Path:
    """Return the path of the first of these files that is there, else of the first."""
    paths = [root / name for name in names]
    return next((path for path in paths if path.is_file()), paths[0])


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder data sets are kept in: `root`, else $DUALPROP_DATA, else the user's cache folder."""
    chosen = root or os.environ.get("DUALPROP_DATA")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("dualprop") / "data"
