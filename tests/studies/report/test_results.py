"""RESULTS.md is what the command makes of results/, to the byte; so is what a reader is told of it."""

import re
from pathlib import Path

from dualprop.studies import tables
from dualprop.studies.report.document import document

ROOT = Path(__file__).parents[3]


def test_results_are_those_of_the_records():
    """After another record or table: dualprop report results -o RESULTS."""
    made = document([ROOT / "results"]).markdown()
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == made


def test_every_published_number_is_there_and_full_lengths_come_first():
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    sections = text.split("\n## ")[1:]
    for name in tables.shipped():
        table = tables.read(name)
        section = next(each for each in sections if each.startswith(table.title + "\n"))
        for row in table.rows:
            for metric, number in row.published.items():
                shown = f"{number.mean:.{table.metrics[metric].digits}f}"
                assert re.search(rf"^\| {re.escape(row.label)}: [^|]*\|[^|]*\| {shown} ", section, re.MULTILINE)
    full = [re.search(r"\b(agree|differ|2 s)\b", each) is not None for each in sections]
    assert full[0]
