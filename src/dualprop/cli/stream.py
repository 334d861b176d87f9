"""`dualprop stream`: continuous inference and learning from a source, into a run folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.cli._options import StreamOptions, run_folder
from dualprop.errors import DualpropError
from dualprop.runs.streams import StreamRun, StreamSettings
from dualprop.studies import prequential
from dualprop.training.stream.display import Display
from dualprop.training.stream.follow import begin
from dualprop.training.stream.follow import resume as go_on


def stream(
    source: Annotated[str | None, Parameter(show_default="mnist", allow_leading_hyphen=True)] = None,
    /,
    *,
    run: Annotated[Path | None, Parameter(show_default="runs/stream-SOURCE-seedN-TIME")] = None,
    resume: Path | None = None,
    settings: StreamOptions | None = None,
) -> None:
    """Follow a stream.

    Args:
        source: Where frames come from.
        run: The run folder to make.
        resume: Continue this run folder from its last checkpoint.
    """
    given = dict(settings or {})
    if source is not None:
        given["source"] = source
    if resume is None:
        chosen = StreamSettings(**given)
        folder = run or run_folder("stream", chosen.source, f"seed{chosen.seed}")
        with Display(chosen.source) as display:
            followed = begin(chosen, folder, display)
    else:
        if run is not None:
            raise DualpropError("run: goes with a new run; the folder that --resume names has its own")
        folder = resume
        with Display(StreamRun.open(folder).settings.source) as display:
            followed = go_on(folder, given, display)
    prequential.draw(StreamRun.open(folder), followed.counts.drifts)
    counts = followed.counts
    said = (
        "nothing judged" if math.isnan(counts.accuracy) else f"accuracy {counts.accuracy:.2%} of {counts.judged:,}"
    )
    beside = {"dropped": followed.dropped, "unread": counts.unread, "labels too late": followed.learner.missed}
    told = "".join(f", {number:,} {what}" for what, number in beside.items() if number)
    print(f"{followed.learner.ticks:,} ticks, {said}{told}\nrun folder: {folder}")
