"""The folders of a tree of images: what is taken for a class, what for an image, and what is left out."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dualprop.data._images import extensions
from dualprop.errors import DataError

logger = logging.getLogger("dualprop")

_OF_SYSTEMS = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)


@dataclass
class Tree:
    """The images of one part of a folder.

    Attributes:
        classes: the names of the folders directly in it, sorted.
        files: the images in them and in the folders below, class by class, sorted.
        labels: of each image, the number of its class.
    """

    classes: tuple[str, ...]
    files: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


class LeftOut:
    """Counts what is not read, for the user to know."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, Path] = {}

    def add(self, why: str, path: Path) -> None:
        """Count one thing in."""
        self._counts[why] += 1
        self._first.setdefault(why, path)

    def tell(self, folder: Path) -> None:
        """One line for the log, unless there is nothing to tell."""
        if told := self.told(folder):
            logger.warning("%s: left out: %s", folder, told)

    def told(self, folder: Path) -> str:
        """How many there are of what, and the first of each."""
        return ", ".join(
            f"{count} {why} (the first: {self._first[why].relative_to(folder)})"
            for why, count in self._counts.most_common()
        )


def tree(folder: Path, part: str, left_out: LeftOut) -> Tree:
    """Look through `folder/part`.

    Links to folders are not followed. Links to files are, within `folder`.

    Args:
        folder: the whole data set.
        part: train or test.
        left_out: where to count what is not read.

    Raises:
        DataError: no such folder, no class in it, or a class without images.
    """
    top = folder / part
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; a folder data set is PATH/train/CLASS/* and PATH/test/CLASS/*")
    within = folder.resolve()
    if not top.resolve().is_relative_to(within):
        raise DataError(f"{top}: is a link that leads out of {folder}")
    classes = []
    for entry in _entries(top):
        if _is_read(entry, within, left_out):
            if entry.is_dir():
                classes.append(entry.name)
            else:
                left_out.add("outside the folder of a class", Path(entry.path))
    if not classes:
        raise DataError(_with(left_out, folder, f"{top}: has no folder of a class, PATH/{part}/CLASS/*"))
    found = Tree(tuple(sorted(classes)))
    for label, name in enumerate(found.classes):
        files = sorted(images_below(top / name, within, left_out), key=lambda file: (file.parent, file.name))
        if not files:
            raise DataError(_with(left_out, folder, f"{top}: has no image of the class {name}"))
        found.files += files
        found.labels += [label] * len(files)
    return found


def images_below(folder: Path, within: Path, left_out: LeftOut) -> Iterator[Path]:
    """The image files in a folder and in the folders below it; what is not read is counted."""
    folders = [folder]
    while folders:
        for entry in _entries(folders.pop()):
            if not _is_read(entry, within, left_out):
                continue
            if entry.is_dir():
                folders.append(Path(entry.path))
            else:
                yield Path(entry.path)


def _is_read(entry: os.DirEntry[str], within: Path, left_out: LeftOut) -> bool:
    """Whether it is a folder to look into or a file to read; what is neither is counted."""
    path = Path(entry.path)
    if entry.name.startswith(".") or entry.name in _OF_SYSTEMS:
        left_out.add("hidden or a system's own", path)
    elif entry.is_symlink() and not _is_link_to_file(path, within):
        left_out.add("links to folders, out of it, or to nothing", path)
    elif entry.is_dir():
        return True
    elif not entry.is_file():
        left_out.add("no regular files", path)
    elif path.suffix.lower() not in extensions():
        left_out.add("of no format that is read", path)
    else:
        return True
    return False


def _is_link_to_file(path: Path, within: Path) -> bool:
    """Whether a link leads to a file within the folder."""
    try:
        target = Path(os.path.realpath(path, strict=True))
    except OSError:  # to nothing, or to itself
        return False
    return target.is_file() and target.is_relative_to(within)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def _with(left_out: LeftOut, folder: Path, message: str) -> str:
    told = left_out.told(folder)
    return f"{message}; left out: {told}" if told else message
