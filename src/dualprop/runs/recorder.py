"""Where the numbers of a run go: a line in `metrics.jsonl` and scalars for TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from dualprop.runs.folder import Run

Number = float | int | Sequence[float] | Mapping[str, float]


def scalars(kind: str, numbers: Mapping[str, Number]) -> dict[str, float]:
    """One number for each tag, as TensorBoard and its like are told.

    Args:
        kind: "train", "epoch" or "test".
        numbers: by name: plain numbers, one number per layer, or several by name.

    Example:
        >>> scalars("epoch", {"loss": 0.5, "cosine": [1.0, 0.9], "measures": {"steps": 3}})
        {'epoch/loss': 0.5, 'cosine/layer 1': 1.0, 'cosine/layer 2': 0.9, 'epoch measures/steps': 3}
    """
    return {tag: number for name, value in numbers.items() for tag, number in _tagged(kind, name, value)}


def _tagged(kind: str, name: str, value: Number) -> Iterator[tuple[str, float]]:
    """The tags of one of them."""
    if isinstance(value, Mapping):
        yield from ((f"{kind} {name}/{own}", number) for own, number in value.items())
    elif isinstance(value, Sequence):
        yield from ((f"{name}/layer {k}", number) for k, number in enumerate(value, 1))
    else:
        yield f"{kind}/{name}", value


class Recorder:
    """Writes the numbers of one run, from `step` on; a context that closes the event file.

    Args:
        run: the run folder.
        step: the steps already made; what was recorded beyond them is dropped, for it will be made again.
    """

    def __init__(self, run: Run, step: int) -> None:
        self.run = run
        run.rewind_metrics(step)
        with run.writing("event file"):
            self._events = run.events(step)

    def record(self, kind: str, step: int, **numbers: Number) -> None:
        """One record: plain numbers, one number per layer, or several by name.

        Args:
            kind: "train" within an epoch, "epoch" at its end, "test" at the very end.
            step: batches trained so far.
            numbers: what was measured, by name.

        Raises:
            CheckpointError: if it cannot be written.
        """
        self.run.log(kind=kind, step=step, **numbers)
        if self._events is not None:
            with self.run.writing("event file"):
                self._events.add(scalars(kind, numbers), step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):  # every record has been flushed, or its error raised
                self._events.close()
