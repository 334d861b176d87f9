"""Table and picture again, from the numbers that a bench has kept."""

from __future__ import annotations

from pathlib import Path

from dualprop.runs.documents import write_text
from dualprop.studies.bench.chart import draw
from dualprop.studies.bench.report import Measurements


def render(numbers: Path, table: Path | None = None, chart: Path | None = None) -> Measurements:
    """Write what a bench writes, from its JSON alone: on any machine, with any version that still reads it.

    Args:
        numbers: the JSON file.
        table: where the tables in Markdown go; nowhere if None.
        chart: where the picture goes; nowhere if None, or if nothing was measured.

    Returns:
        The report, to print it or to take single tables from.

    Raises:
        CheckpointError: if the file is missing or damaged, or holds something else.
    """
    report = Measurements.read(numbers)
    if table is not None:
        write_text(table, report.markdown())
    if chart is not None and report.rows:
        draw(report, chart)
    return report
