"""Which cases are for `make test-all` alone: those that are told here, and those that a measurement has found."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

CASES = Path(__file__).with_name("slow.txt")
"""A case a line."""

LONG = 0.06
"""Seconds on an idle machine. What takes longer is slow, if another case of its test is left for `make test`."""


def but_slow(values: Iterable[Any], *slow: Any) -> list[Any]:
    """The values of a parameter, these of them marked `slow`."""
    values = list(values)
    assert set(slow) < set(values), "they are among the values, and one is left for `make test`"
    return [pytest.param(value, marks=pytest.mark.slow) if value in slow else value for value in values]


def measured() -> frozenset[str]:
    """The cases that `CASES` names, by module and name."""
    return frozenset(CASES.read_text(encoding="utf-8").splitlines())


def name_of(module: str, case: str) -> str:
    """What a case is called in `CASES`: its parameters may hold anything."""
    return f"{module} {case.encode('unicode_escape').decode()}"


def found(report: Path) -> list[str]:
    """The cases that took long in a run of `make test`, after those that are known.

    Args:
        report: what `--junitxml` wrote.
    """
    tests: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for case in ElementTree.parse(report).iter("testcase"):
        module, name = str(case.get("classname")), str(case.get("name"))
        tests[module, name.partition("[")[0]][name_of(module, name)] = float(case.get("time", 0))
    names: set[str] = set(measured())
    for cases in tests.values():
        quickest = min(cases, key=lambda each: cases[each])
        names |= {case for case, seconds in cases.items() if seconds > LONG and case != quickest}
    return sorted(names)


if __name__ == "__main__":
    CASES.write_text("".join(f"{name}\n" for name in found(Path(sys.argv[1]))), encoding="utf-8")
