"""Samples with features and classes by name, as River's data sets have them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

from dualprop.errors import DataError, DualpropError
from dualprop.extras import extra
from dualprop.registry import Registry
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.sources.base import Item, Source
from dualprop.training.stream.sources.lines import Sample, Unread
from dualprop.training.stream.sources.names import Classes, Features


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
        at = f"line {sample.number}"
        if isinstance(sample, Unread):
            return Item(None, unread=sample.why, at=at)
        try:
            x = None if sample.features is None else self._features.of(sample.features)
        except DualpropError as error:
            return Item(None, unread=str(error), at=at)
        y = None if sample.label is None else self._labels.of(sample.label)
        return Item(x, y, frame=sample.frame, at=at)

    def state_dict(self) -> dict[str, Any]:
        """Names and their moments, and labels."""
        return {"features": self._features.state_dict(), "labels": self._labels.state_dict()}

    def load_state_dict(self, state: Any) -> None:
        """Take them back."""
        self._features.load_state_dict(state["features"])
        self._labels.load_state_dict(state["labels"])


def of_river(settings: StreamSettings, name: str) -> Named:
    """A data set of River's.

    Raises:
        DualpropError: for an unknown name, one that has no class for each sample, or where River is not there.
    """
    with extra("river", f"source=river:{name}"):
        from river import datasets
    found = {each: getattr(datasets, each) for each in datasets.__all__}
    kinds = Registry("data set of River's", {each: kind for each, kind in found.items() if isinstance(kind, type)})
    dataset = kinds[name]()
    if dataset.task not in CLASSES:
        raise DualpropError(
            f"source=river:{name}: is for {dataset.task.lower()}, but a stream has a class a sample"
        )
    return Named(settings, _samples(dataset, name), dataset.n_samples, rewinds=True)


CLASSES = ("Binary classification", "Multi-class classification")
"""River's words for the tasks that a stream may have."""


def _samples(dataset: Iterable[tuple[Mapping[str, Any], Hashable]], name: str) -> Iterator[Sample]:
    """What a data set of River's has, which may have to be fetched first."""
    try:
        for number, (x, y) in enumerate(dataset, 1):
            yield Sample(number, dict(x), y if isinstance(y, str | int | float) else str(y))
    except OSError as error:
        raise DataError(f"source=river:{name}: cannot be had ({error})") from None
