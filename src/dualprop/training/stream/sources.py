"""Where frames come from: data sets and folders of images, synthetic drift, data sets of River's, lines."""

from __future__ import annotations

import functools
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor
from torch.nn import functional

from dualprop import data
from dualprop.data.frames import Frames
from dualprop.errors import DataError, DualpropError
from dualprop.extras import extra
from dualprop.nets.shapes import Shape
from dualprop.registry import Registry
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.lines import Lines, Sample, Unread
from dualprop.training.stream.names import Classes, Features
from dualprop.training.stream.pipe import Pipe

SHIFT, TURN = 3, 15.0
"""How far a drifting image goes: pixels and degrees."""


class Item(NamedTuple):
    """What comes in at a tick.

    Attributes:
        x: the frame; None for one that was dropped, or where only a label comes.
        y: its class; None for not yet.
        first: whether it is the first view of a picture, the one that is judged.
        frame: what the frame is called; of a label that comes late, its frame.
        unread: why there is nothing, where something could not be read.
    """

    x: Tensor | None
    y: int | None = None
    first: bool = True
    frame: int | str | None = None
    unread: str = ""


class Source(ABC):
    """Frames, one after the other.

    Attributes:
        in_shape: of a frame.
        classes: how many there are at first.
        length: how many items there will be; None where nobody knows.
        grows: whether features and classes come that were not there at first.
        dropped: how many items found no place to wait for the learner.
    """

    in_shape: Shape
    classes: int
    length: int | None = None
    grows = False

    @property
    def dropped(self) -> int:
        """How many items found no place to wait for the learner, since it began."""
        return 0

    @abstractmethod
    def items(self, start: int) -> Iterator[Item | None]:
        """The items from a number on, the same at every call; None for nothing yet.

        Args:
            start: the number of the first; a source that cannot go back goes on where it is.
        """

    def digest(self, items: int) -> str:
        """What tells the first items from those of another source; "" where nothing does.

        Args:
            items: how many.
        """
        return ""

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Take back what `state_dict` gave."""


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
        """An image as it is seen at each tick: as it is, or walking at random and turning, slowly."""
        if not self._settings.drift:
            for _ in range(self._settings.hold):
                yield x
            return
        generator = torch.Generator().manual_seed(mixed(self._settings.seed, number))
        place = torch.zeros(3)
        for _ in range(self._settings.hold):
            yield _moved(x, *place.tolist())
            step = torch.randint(-1, 2, (3,), generator=generator) * torch.tensor([1.0, 1.0, TURN / 5])
            place = (place + step).clamp(-torch.tensor([SHIFT, SHIFT, TURN]), torch.tensor([SHIFT, SHIFT, TURN]))


class Drifting(Source):
    """Clouds of points around the classes' centres, where something changes.

    Args:
        settings: source, period and seed.
    """

    in_shape, classes = (20,), 5

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        generator = torch.Generator().manual_seed(settings.seed)
        self._centres = 2 * torch.randn(self.classes, *self.in_shape, generator=generator)
        self._goal = 2 * torch.randn(self.classes, *self.in_shape, generator=generator)

    def items(self, start: int) -> Iterator[Item | None]:
        """Without end; each is drawn by its number alone."""
        seed, period = self._settings.seed, self._settings.period
        change = DRIFTS[self._settings.source]
        number = start
        while True:
            generator = torch.Generator().manual_seed(mixed(seed, number))
            y = int(torch.randint(self.classes, (), generator=generator))
            noise = torch.randn(self.in_shape, generator=generator)
            yield Item(*change(self, noise, y, number, period))
            number += 1

    def permuted_inputs(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """Every period the inputs change places."""
        return (self._centres[y] + noise)[self._order(self.in_shape[0], number // period)], y

    def permuted_labels(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """Every period the classes change names."""
        return self._centres[y] + noise, int(self._order(self.classes, number // period)[y])

    def gradual(self, noise: Tensor, y: int, number: int, period: int) -> tuple[Tensor, int]:
        """The centres go to other places and back, in two periods."""
        way = 0.5 - 0.5 * math.cos(math.pi * number / period)
        return torch.lerp(self._centres[y], self._goal[y], way) + noise, y

    def _order(self, count: int, turn: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed(self._settings.seed, turn, 1))
        return torch.randperm(count, generator=generator)


DRIFTS: dict[str, Callable[[Drifting, Tensor, int, int, int], tuple[Tensor, int]]] = {
    "permuted-inputs": Drifting.permuted_inputs,
    "permuted-labels": Drifting.permuted_labels,
    "gradual": Drifting.gradual,
}


class Named(Source):
    """Samples with features and classes by name, which may be new at any time.

    Args:
        settings: standardise.
        samples: in their order; they are asked for once.
        length: how many there will be, if that is known.
        rewinds: whether they begin at the first when they are asked for again in another process.
    """

    grows = True

    def __init__(
        self,
        settings: StreamSettings,
        samples: Iterable[Sample | Unread | None],
        length: int | None = None,
        *,
        rewinds: bool = False,
    ) -> None:
        self._samples, self.length, self._rewinds = iter(samples), length, rewinds
        self._features, self._labels = Features(standardise=settings.standardise), Classes()
        self._before: list[Item] = []  # what came before the first features were known
        self.in_shape, self.classes = (1,), 1

    def wait(self, asked: Callable[[], bool]) -> None:
        """Until the first sample is there, whose features are those of the first frame."""
        while not self._features.columns and not asked():
            item = self._next()
            if item is not None:
                self._before.append(item)
        self.in_shape = (len(self._features.columns),)

    def items(self, start: int) -> Iterator[Item | None]:
        """Those that have not been yet."""
        for number in range(start) if self._rewinds else ():
            if next(self._samples, None) is None:
                raise DualpropError(f"source: ends after {number} samples, but the stream was {start} long")
        while self._before:
            yield self._before.pop(0)
        while True:
            try:
                yield self._next()
            except StopIteration:
                return

    def _next(self) -> Item | None:
        sample = next(self._samples)
        if sample is None:
            return None
        if isinstance(sample, Unread):
            return Item(None, unread=f"line {sample.number}: {sample.why}")
        try:
            x = None if sample.features is None else self._features.of(sample.features)
        except DualpropError as error:
            return Item(None, unread=f"line {sample.number}: {error}")
        y = None if sample.label is None else self._labels.of(sample.label)
        return Item(x, y, frame=sample.frame)

    def state_dict(self) -> dict[str, Any]:
        """Names and their moments, and labels."""
        return {"features": self._features.state_dict(), "labels": self._labels.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        """Take them back."""
        self._features.load_state_dict(state["features"])
        self._labels.load_state_dict(state["labels"])


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
    if name not in SOURCES and kind not in SOURCES:
        if name not in data.DATASETS:
            known = ", ".join([*data.DATASETS, *DRIFTS])
            raise DualpropError(f"source={name!r}: must be one of {known}, folder:PATH, river:NAME or -")
        kind = "images"
    if kind not in ("images", "folder") and (settings.drift or settings.hold > 1):
        what = "drift" if settings.drift else f"hold={settings.hold}"
        raise DualpropError(f"{what}: is for images, but source={name} has none")
    return SOURCES[name if name in SOURCES else kind](settings, rest, stdin)


def _images(settings: StreamSettings, _: str, __: TextIO) -> Source:
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


def _folder(settings: StreamSettings, path: str, _: TextIO) -> Source:
    frames = Frames(Path(path), settings.image_size, settings.background)
    shape = tuple(frames[0][0].shape)
    return Images(settings, len(frames), frames.__getitem__, shape, len(frames.classes), frames.digest)


def _drifting(settings: StreamSettings, _: str, __: TextIO) -> Source:
    return Drifting(settings)


def _river(settings: StreamSettings, name: str, _: TextIO) -> Source:
    with extra("river", f"source=river:{name}"):
        from river import datasets
    kinds = Registry("data set of River's", {each: getattr(datasets, each) for each in datasets.__all__})
    dataset = kinds[name]()
    samples = (Sample(number, dict(x), _label(y)) for number, (x, y) in enumerate(dataset, 1))
    return Named(settings, samples, dataset.n_samples, rewinds=True)


def _label(y: Hashable) -> Any:
    return y if isinstance(y, str | int | float) else str(y)


def _lines(settings: StreamSettings, _: str, stdin: TextIO) -> Source:
    if stdin is None or stdin.closed:
        raise DualpropError("source=-: standard input is closed")
    if isinstance(stdin, io.TextIOWrapper):
        stdin.reconfigure(errors="replace")  # what is no UTF-8 is no JSON either
    return Piped(settings, Pipe(stdin, settings.places, drop=settings.drop))


class Piped(Named):
    """Lines of JSON or CSV.

    Args:
        settings: target, standardise.
        pipe: where they come from.
    """

    def __init__(self, settings: StreamSettings, pipe: Pipe) -> None:
        self._pipe = pipe
        super().__init__(settings, self._samples_of(Lines(settings.target)))

    @property
    def dropped(self) -> int:
        """How many lines found no place to wait for the learner."""
        return self._pipe.dropped

    def _samples_of(self, lines: Lines) -> Iterator[Sample | Unread | None]:
        """What the lines say; None while waiting."""
        try:
            for numbered in self._pipe:
                if numbered is None:
                    yield None
                elif (read := lines.read(numbered[1], numbered[0])) is not None:
                    yield read
        except (OSError, ValueError) as error:
            raise DataError(f"source=-: cannot be read on ({error})") from None


def mixed(*numbers: int) -> int:
    """A seed that depends on all of them."""
    return hash(numbers) % 2**63  # of whole numbers, which is the same in every process


def _moved(x: Tensor, right: float, down: float, degrees: float) -> Tensor:
    """An image that has gone some pixels and turned, zeros coming in."""
    turn = math.radians(degrees)
    height, width = x.shape[1:]
    theta = torch.tensor(
        [
            [math.cos(turn), -math.sin(turn), 2 * right / width],
            [math.sin(turn), math.cos(turn), 2 * down / height],
        ]
    )
    grid = functional.affine_grid(theta[None], [1, *x.shape], align_corners=False)
    return functional.grid_sample(x[None], grid, align_corners=False)[0]


SOURCES: dict[str, Callable[[StreamSettings, str, TextIO], Source]] = {
    **dict.fromkeys(DRIFTS, _drifting),
    "images": _images,
    "folder": _folder,
    "river": _river,
    "-": _lines,
}
