"""Lines of JSON or CSV as samples by name."""

from __future__ import annotations

import csv
import json
import math
from typing import Any, NamedTuple

from dualprop.errors import DualpropError
from dualprop.files import parse_json
from dualprop.training.stream.sources.names import shortened


class Sample(NamedTuple):
    """What a line says.

    Attributes:
        number: of the line, from 1.
        features: by name; None for a line that brings a label alone.
        label: what it says under the name of the target; None for not yet.
        frame: what the frame is called, or of a label that comes late, its frame; None for no name.
    """

    number: int
    features: dict[str, Any] | None
    label: Any = None
    frame: int | str | None = None


class Unread(NamedTuple):
    """A line that cannot be read.

    Attributes:
        number: of the line, from 1.
        why: one line.
    """

    number: int
    why: str


class Lines:
    """Reads line after line: JSON objects, or CSV if the first is no object; that is then its header.

    An object's numbers and words are features by their names, and those of a list are named by name and place. A
    line of `frame` and the target alone, all other cells empty, brings the label of a frame that came before: the
    one that a line has called so, or, where lines have no `frame`, the one of that number, counted from 0 without
    those left out.

    Args:
        target: the name of the label.

    Example:
        >>> lines = Lines("y")
        >>> lines.read('{"a": 1, "b": [2, 3], "y": "cat"}').features
        {'a': 1, 'b.0': 2, 'b.1': 3}
        >>> lines.read("no JSON")
        Unread(number=2, why='no JSON (Expecting value)')
        >>> lines = Lines("y")
        >>> lines.read("a,b,y"), lines.read("1,red,cat").features
        (None, {'a': 1.0, 'b': 'red'})
    """

    def __init__(self, target: str) -> None:
        self.target, self.number = target, 0
        self._header: list[str] | None = None

    def read(self, line: str, number: int | None = None) -> Sample | Unread | None:
        """What a line says; None for an empty one, and for a header.

        Args:
            line: the line.
            number: its own, if some before it were left out.
        """
        self.number = self.number + 1 if number is None else number
        if self.number == 1:
            line = line.removeprefix("\ufeff")  # the mark that some programs begin a file with
        if not line.strip():
            return None
        try:
            if self._header is not None:
                return _of_csv(self.number, self._header, line, self.target)
            if line.lstrip().startswith("{") or self.number > 1:
                return _of_json(self.number, line, self.target)
            self._header = _cells(line)
        except (ValueError, csv.Error) as error:
            return Unread(self.number, str(error))
        twice = {name for name in self._header if self._header.count(name) > 1}
        if twice:
            return Unread(self.number, f"columns of one name, {', '.join(sorted(twice))}: the last of them counts")
        known = self.target in self._header
        return None if known else Unread(self.number, f"no column {self.target!r}, so that no line has a label")


def _of_json(number: int, line: str, target: str) -> Sample:
    try:
        values = parse_json(line)
    except json.JSONDecodeError as error:
        raise DualpropError(f"no JSON ({error.msg})") from None
    if not isinstance(values, dict):
        raise DualpropError("no JSON object")
    flat: dict[str, Any] = {}
    for name, value in values.items():
        listed = isinstance(value, list) and name not in (target, "frame")
        flat |= {f"{name}.{i}": each for i, each in enumerate(value)} if listed else {name: value}
    return _sample(number, flat, target)


def _of_csv(number: int, header: list[str], line: str, target: str) -> Sample:
    cells = _cells(line)
    if len(cells) != len(header):
        raise DualpropError(f"{len(cells)} values, but the header has {len(header)} names")
    values: dict[str, Any] = {name: _value(cell) for name, cell in zip(header, cells, strict=True)}
    if isinstance(frame := values.get("frame"), float) and frame.is_integer():
        values["frame"] = int(frame)
    return _sample(number, values, target)


def _sample(number: int, values: dict[str, Any], target: str) -> Sample:
    """A line's values as features, label and frame."""
    label, frame = values.pop(target, None), values.pop("frame", None)
    if isinstance(label, list | dict) or (isinstance(label, float) and not math.isfinite(label)):
        raise DualpropError(f"{target}={shortened(label)}: must be a word or a finite number")
    if frame is not None and type(frame) not in (int, str):
        raise DualpropError(f"frame={shortened(frame)}: must be a whole number or a word")
    alone = frame is not None and all(value is None for value in values.values())
    return Sample(number, None if alone else values, label, frame)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], strict=True))]


def _value(cell: str) -> float | str | None:
    """A cell's number, or its word; None for an empty one."""
    try:
        return float(cell)
    except ValueError:
        return cell or None
