"""What came of runs: those of a comparison side by side, and those of a paper's tables beside its numbers."""

from dualprop.studies.report.finished import Record
from dualprop.studies.report.side_by_side import Report

__all__ = ["Record", "Report"]
