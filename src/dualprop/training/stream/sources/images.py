"""Images one by one, of a data set or a folder, each held for some ticks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dualprop import data
from dualprop.data.frames import Frames
from dualprop.errors import DataError, DualpropError
from dualprop.nets.shapes import Shape
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.sources.base import Item, Source, mixed
from dualprop.training.stream.sources.views import drifting, still


class Images(Source):
    """Images one by one, each held for some ticks, still or drifting.

    Args:
        settings: hold, drift and seed.
        count: how many images.
        image: one by its number: pixels uint8 of shape (C, H, W) or features, and its class.
        in_shape: of an image.
        classes: how many.
        digest: of so many images.
    """

    def __init__(
        self,
        settings: StreamSettings,
        count: int,
        image: Callable[[int], tuple[Tensor, int | None]],
        in_shape: Shape,
        classes: int,
        digest: Callable[[int], str],
    ) -> None:
        if settings.drift and len(in_shape) != 3:
            raise DualpropError(f"drift: moves images, but a frame has shape {in_shape}")
        self._settings, self._count, self._image, self._digest = settings, count, image, digest
        self.in_shape, self.classes, self.length = in_shape, max(1, classes), count * settings.hold

    def items(self, start: int) -> Iterator[Item | None]:
        """Every image for `hold` ticks; one that cannot be read any more is dropped for as many."""
        hold = self._settings.hold
        for number in range(start // hold, self._count):
            begin = max(start, number * hold)
            try:
                x, y = self._image(number)
            except DataError as error:
                for tick in range(begin, (number + 1) * hold):
                    yield Item(None, first=False, unread=str(error) if tick == begin else "")
                continue
            x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            for tick, view in enumerate(self._views(x, number)):
                if number * hold + tick >= begin:
                    yield Item(view, y, first=tick == 0)

    def digest(self, items: int) -> str:
        """That of the images which they are views of."""
        return self._digest(-(-items // self._settings.hold))

    def _views(self, x: Tensor, number: int) -> Iterator[Tensor]:
        """An image as it is seen at each tick."""
        hold, seed = self._settings.hold, self._settings.seed
        return drifting(x, hold, mixed(seed, number)) if self._settings.drift else still(x, hold)


def of_dataset(settings: StreamSettings) -> Images:
    """The images of a data set, in an order drawn by the seed.

    Raises:
        DualpropError: for one that has no images which can be had one by one.
    """
    dataset = data.load(settings.source, settings.data_root)
    split = dataset.train
    if not isinstance(split, data.Split):
        raise DualpropError(f"source={settings.source!r}: has no images that can be had one by one")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(settings.seed))

    def image(number: int) -> tuple[Tensor, int]:
        x, y = split.batch(order[number : number + 1])
        return x[0], int(y[0])

    @functools.cache
    def whole() -> str:
        return data.fingerprint(dataset)

    return Images(settings, len(split), image, dataset.in_shape, dataset.num_classes, lambda _: whole())


def of_folder(settings: StreamSettings, path: str) -> Images:
    """The images of a folder, in the order of their names.

    Raises:
        DualpropError: for no name of a folder, or one that cannot be read.
    """
    if not path:
        raise DualpropError("source='folder:': names no folder; folder:. is this one")
    frames = Frames(Path(path), settings.image_size, settings.background)
    shape = tuple(frames[0][0].shape)
    return Images(settings, len(frames), frames.__getitem__, shape, len(frames.classes), frames.digest)
