"""Where frames come from: data sets and folders of images, synthetic drift, data sets of River's, lines."""

from __future__ import annotations

from typing import TextIO

from dualprop import data
from dualprop.errors import DualpropError
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.sources.base import Item, Source, mixed
from dualprop.training.stream.sources.images import Images, of_dataset, of_folder
from dualprop.training.stream.sources.named import Named, of_river
from dualprop.training.stream.sources.piped import Piped, of_stdin
from dualprop.training.stream.sources.synthetic import DRIFTS, Drifting

__all__ = ["DRIFTS", "Drifting", "Images", "Item", "Named", "Piped", "Source", "made", "mixed"]


def made(settings: StreamSettings, stdin: TextIO) -> Source:
    """The source that settings name.

    Args:
        settings: those of the stream.
        stdin: where lines come from.

    Raises:
        DualpropError: for an unknown name, or a source that cannot be read.
    """
    name = settings.source
    kind, _, rest = name.partition(":")
    pictures = name in data.DATASETS or kind == "folder"
    if not pictures and name not in DRIFTS and kind != "river" and name != "-":
        known = ", ".join([*data.DATASETS, *DRIFTS])
        raise DualpropError(f"source={name!r}: must be one of {known}, folder:PATH, river:NAME or -")
    if not pictures and (settings.drift or settings.hold > 1):
        what = "drift" if settings.drift else f"hold={settings.hold}"
        raise DualpropError(f"{what}: is for images, but source={name} has none")
    if kind == "folder":
        return of_folder(settings, rest)
    if kind == "river":
        return of_river(settings, rest)
    if name in DRIFTS:
        return Drifting(settings)
    return of_stdin(settings, stdin) if name == "-" else of_dataset(settings)
