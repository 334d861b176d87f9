"""What a table is: rows from axes, what each row is made by, and what was published for it."""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dualprop import files
from dualprop.arguments import Count, CountOrZero, NotNegative, Number, check, checked
from dualprop.errors import DualpropError
from dualprop.registry import Registry, near
from dualprop.runs.settings import Settings
from dualprop.studies.tables.makers import MAKERS, Maker
from dualprop.training import recipes
from dualprop.training.recipes import TABLES, Recipe

LARGEST = 2**16
"""Bytes of a table's definition."""

PARTS = (*TABLES, "measure")
"""What is given by names of its own: settings of net and rule, arguments of the maker."""


@checked
@dataclass(frozen=True)
class Metric:
    """A column of a table: a number of each record.

    Args:
        title: what stands above it, with its unit.
        scale: what the record's number is multiplied by, 100 for per cent.
        digits: behind the point.
        margin: up to which a difference counts as none, in the unit that is shown.
    """

    title: str
    scale: Number = 1.0
    digits: CountOrZero = 2
    margin: NotNegative = 0.0


@checked
@dataclass(frozen=True)
class Published:
    """A published number.

    Args:
        mean: in the unit that is shown.
        std: the standard deviation over seeds; None where none was given.
        seeds: how many there were.
        source: where it stands.
        unlike: why it does not compare with what is measured here, whatever that is; empty where it does.
    """

    mean: Number
    std: NotNegative | None
    seeds: Count
    source: str
    unlike: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """Cells that differ in their seeds alone.

    Attributes:
        table: the table's name.
        block: the heading that the row stands under; may be empty.
        at: its place on each axis, in words.
        make: the name of its maker in `MAKERS`.
        maker: what makes and reads its cells.
        recipe: settings to start from.
        given: settings by name that override the recipe's.
        classes: of the data, where it matters: data of fewer are a part of them.
        seeds: of the full table.
        published: by the metric's name.
    """

    table: str
    block: str
    at: Mapping[str, str]
    make: str
    maker: Maker
    recipe: Recipe
    given: Mapping[str, Any]
    classes: int | None
    seeds: int
    published: Mapping[str, Published]
    name: str

    @property
    def rule(self) -> str:
        """The rule's name."""
        return self.settings().rule

    @property
    def label(self) -> str:
        """Its place in one line: the rule by its name alone."""
        return ", ".join(word if axis == "rule" else f"{axis} {word}" for axis, word in self.at.items())

    @property
    def command(self) -> str:
        """What makes its cells."""
        return f"dualprop reproduce {self.table} --cells {self.name}"

    def settings(self, seed: int = 0, common: Mapping[str, Any] | None = None) -> Settings:
        """The settings of a cell.

        Args:
            seed: the cell's.
            common: settings by name that override the table's; those of rule and net are put to the others.

        Raises:
            DualpropError: for a name that is no setting, or a value out of range.
        """
        return self.recipe.settings_for({**_put(self.given, common or {}), "seed": seed})


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a paper, or one like it.

    Attributes:
        name: what it is called by.
        title: its heading.
        claim: what it is to show.
        paper: where it was published; empty for a table of ours.
        place: where in the paper.
        metrics: the columns, by the number's name in a record.
        rows: in the order of the table.

    Example:
        >>> from dualprop.studies import tables
        >>> table = tables.read("mnist-mlp")
        >>> [row.label for row in table.rows][:2], table.rows[1].published["test_accuracy"].mean
        (['bp', 'dp'], 98.43)
    """

    name: str
    title: str
    claim: str
    paper: str
    place: str
    metrics: Mapping[str, Metric]
    rows: tuple[Row, ...]

    def chosen(self, rules: Sequence[str] | None = None, cells: Sequence[str] | None = None) -> list[Row]:
        """Some of the rows, or all.

        Args:
            rules: those of these rules.
            cells: those of these names, or of names like these: * stands for any characters.

        Raises:
            DualpropError: for a rule or a name that the table does not have.
        """
        names, known = [row.name for row in self.rows], list(dict.fromkeys(row.rule for row in self.rows))
        for rule in rules or ():
            if rule not in known:
                raise DualpropError(f"rules={rule!r}: the table {self.name} has no such rule; {near(rule, known)}")
        for cell in cells or ():
            if not fnmatch.filter(names, cell):
                raise DualpropError(f"cells={cell!r}: the table {self.name} has no such cell; {near(cell, names)}")
        return [
            row
            for row in self.rows
            if (rules is None or row.rule in rules)
            and (cells is None or any(fnmatch.fnmatchcase(row.name, cell) for cell in cells))
        ]


def shipped() -> Registry[Any]:
    """The files of the tables that ship with the package, by name."""
    return files.shipped("table", __package__ or "")


def read(table: str | Path) -> Table:
    """A table by its name, or by the path of a TOML file.

    Raises:
        DualpropError: for an unknown name, or a file that is missing or no table.
    """
    values = files.read_toml(table, shipped(), LARGEST)
    try:
        return _table(Path(table).stem if str(table).endswith(".toml") else str(table), values)
    except DualpropError as error:
        raise DualpropError(f"{table}: not a table ({error})") from None


@checked
@dataclass(frozen=True)
class Values:
    """Published numbers of one row: each a mean, or a mean and a standard deviation."""

    at: Mapping[str, Any]
    values: Mapping[str, Number | Annotated[Sequence[Number], Field(min_length=1, max_length=2)]]
    seeds: Count | None = None
    source: str = ""
    unlike: str = ""


@checked
@dataclass(frozen=True)
class Block:
    """Rows of one kind.

    Args:
        name: distinguishes its cells' folders from those of other blocks.
        title: a heading.
        make: a name in `MAKERS`.
        measure: the maker's own arguments; an axis may have some as well.
        recipe: settings to start from.
        settings: that override the recipe's.
        axes: what differs from row to row: for a setting's name a list of its values, or for any other name a
            table of settings by the word that stands for them.
        classes: see `Row`.
        seeds: of the full table.
        published: numbers, each with its row.
    """

    name: str = ""
    title: str = ""
    make: str = "training"
    measure: Mapping[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, Any] = field(default_factory=dict)
    classes: Count | None = None
    seeds: Count = 5
    published: Sequence[Mapping[str, Any]] = ()


@checked
@dataclass(frozen=True)
class Definition:
    """What a file says; its settings are those that all blocks start from."""

    title: str
    claim: str
    metrics: Mapping[str, Mapping[str, Any]]
    blocks: Sequence[Mapping[str, Any]]
    paper: str = ""
    place: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def _table(name: str, values: Mapping[str, Any]) -> Table:
    said = Definition(**values)
    metrics = {metric: Metric(**columns) for metric, columns in said.metrics.items()}
    source = ", ".join(filter(None, (said.paper, said.place)))
    blocks = [Block(**{**each, "settings": _put(said.settings, each.get("settings", {}))}) for each in said.blocks]
    rows = [row for block in blocks for row in _rows(name, block, metrics, source)]
    if not rows or not metrics:
        raise DualpropError("blocks: must hold at least one row, and metrics one column")
    names = [row.name for row in rows]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise DualpropError(f"blocks: two rows are called {twice!r}; give their blocks names")
    return Table(name, said.title, said.claim, said.paper, said.place, metrics, tuple(rows))


def _rows(table: str, block: Block, metrics: Mapping[str, Metric], source: str) -> Iterator[Row]:
    recipe = recipes.read(block.recipe) if block.recipe else Recipe()
    published = [Values(**values) for values in block.published]
    used = set()
    for choice in itertools.product(*(_axis(name, values) for name, values in _axes(block.axes))):
        at = {axis: word for axis, word, _ in choice}
        given: Mapping[str, Any] = block.settings
        for _, _, settings in choice:
            given = _put(given, settings)
        own = check("measure", given.get("measure", {}), Mapping[str, Any])
        given = {name: value for name, value in given.items() if name != "measure"}
        maker = MAKERS[block.make](**{**block.measure, **own})
        if "seed" in given:
            raise DualpropError("seed: every cell has its own; a block says how many by seeds")
        found: dict[str, Published] = {}
        for each in published:
            if {axis: _word(value) for axis, value in each.at.items()}.items() <= at.items():
                used.add(id(each))
                for metric, value in each.values.items():
                    _check_known("published", metric, metrics)
                    mean, *std = value if isinstance(value, Sequence) else [value]
                    spread = check("published", std, Sequence[Number])[0] if std else None
                    number = Published(mean, spread, each.seeds or block.seeds, each.source or source, each.unlike)
                    found[metric] = number
        slug = "-".join(word if axis == "rule" else f"{axis}{word}" for axis, word in at.items())
        name = re.sub(r"[^\w.+]+", "-", "-".join(filter(None, (block.name, slug)))) or block.make
        row = Row(
            table, block.title, at, block.make, maker, recipe, given, block.classes, block.seeds, found, name
        )
        row.maker.check(row.settings())
        yield row
    if unused := next((each for each in published if id(each) not in used), None):
        raise DualpropError(f"published.at={dict(unused.at)}: no row is there")


Choice = tuple[str, str, Mapping[str, Any]]
"""A place on an axis: the axis, the word, the settings."""


def _axes(axes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every axis by the setting's full name: those of rule, net and maker are in tables of their own."""
    for name, values in axes.items():
        if name in PARTS and isinstance(values, Mapping):
            yield from ((f"{name}.{own}", each) for own, each in values.items())
        else:
            yield name, values


def _axis(name: str, values: Any) -> list[Choice]:
    if isinstance(values, Mapping):
        choices = check(f"axes.{name}", values, Mapping[str, Mapping[str, Any]])
        return [(name, word, settings) for word, settings in choices.items()]
    outer, _, own = name.rpartition(".")
    listed = check(f"axes.{name}", values, list[Any])
    if not outer:
        _check_known("axes", own, [f.name for f in fields(Settings)])
    return [(own, _word(value), {outer: {own: value}} if outer else {own: value}) for value in listed]


def _check_known(what: str, name: str, known: Any) -> None:
    if name not in known:
        raise DualpropError(f"{what}: unknown name {name!r}; {near(name, known)}")


def _word(value: Any) -> str:
    """A value as one says it."""
    if isinstance(value, float):
        return f"{value:g}"
    return (
        "-".join(map(_word, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    )


def _put(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings overridden by others; those of rule, net and maker are put together."""
    merged = {**settings, **others}
    for name in PARTS:
        if isinstance(settings.get(name), Mapping) and isinstance(others.get(name), Mapping):
            merged[name] = {**settings[name], **others[name]}
    return merged
