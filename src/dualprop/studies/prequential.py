"""The prequential curve of a stream: how often it was right so far, and over the last thousand frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dualprop.runs.streams import StreamRun
from dualprop.studies._figure import BLACK, COLOURS, save, styled

CURVE = "curve.png"


@styled
def draw(run: StreamRun, drifts: Sequence[int] = ()) -> Path:
    """Draw it into the run folder, from its metrics.

    Args:
        run: the run folder.
        drifts: ticks at which the stream was seen to change.

    Returns:
        The picture's path.
    """
    records = [record for record in run.readable_metrics() if "accuracy" in record]
    figure = Figure(figsize=(6, 3.2))
    axes = figure.add_subplot()
    ticks = [record["step"] for record in records]
    for name, label, colour in (
        ("recent_accuracy", "last 1,000", COLOURS[0]),
        ("accuracy", "so far", BLACK),
    ):
        axes.plot(ticks, [100 * record[name] for record in records], color=colour, label=label)
    for number, tick in enumerate(drifts):
        axes.axvline(tick, color=COLOURS[1], linestyle=":", label="change seen" if number == 0 else None)
    axes.set(xlabel="ticks", ylabel="accuracy, %", ylim=(0, 100), title=run.settings.source)
    if records or drifts:
        axes.legend()
    path = run.path / CURVE
    save(figure, path)
    return path
