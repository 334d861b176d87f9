"""The page of benchmarks is what its template and the kept numbers give."""

import runpy
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "benchmarks"


def test_the_page_is_that_of_the_records():
    made = runpy.run_path(str(FOLDER / "readme.py"))["made"]()
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == made, "python benchmarks/readme.py makes it"
