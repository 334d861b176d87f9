"""Where the numbers of a run go: a line in `metrics.jsonl` and scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from dualprop.runs import Run

Number = float | int | Sequence[float]


class Recorder:
    """Writes the numbers of one run, from `step` on; a context that closes the event file.

    Args:
        run: the run folder.
        step: the steps already made; what was recorded beyond them is dropped, for it will be made again.
    """

    def __init__(self, run: Run, step: int) -> None:
        self.run = run
        run.rewind_metrics(step)
        self._events = run.events(step)

    def record(self, kind: str, step: int, **numbers: Number) -> None:
        """One record: plain numbers, or one number per layer.

        Args:
            kind: "train" within an epoch, "epoch" at its end, "test" at the very end.
            step: batches trained so far.
            numbers: what was measured, by name.
        """
        self.run.log(kind=kind, step=step, **numbers)
        for name, value in numbers.items():
            layers = value if isinstance(value, Sequence) else None
            for k, number in enumerate([value] if layers is None else layers, 1):
                tag = f"{kind}/{name}" if layers is None else f"{name}/layer {k}"
                if self._events is not None:
                    self._events.add_scalar(tag, number, step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()
