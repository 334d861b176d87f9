"""A report before it is a page: sections with tables and figures, from records alone."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dualprop.errors import DualpropError, printable
from dualprop.studies import tables
from dualprop.studies._table import Table, marked
from dualprop.studies.report.figures import Curves, bars, differences, grid_maps, heat_maps, learning_curves
from dualprop.studies.report.grids import columns, grids
from dualprop.studies.report.naming import Machines, commit, folders, listed, together
from dualprop.studies.report.others import others
from dualprop.studies.report.pictures import dyad_pictures, filter_pictures
from dualprop.studies.report.plan import Plan
from dualprop.studies.report.records import environment_of, pictures_of
from dualprop.studies.report.rows import Group, Line, groups, lines
from dualprop.studies.report.verdict import RULE

TITLE = "Published numbers, and ours beside them"

TEXT = (
    "What was published, and what came out here. Every published number has a row: what was not run has the "
    "command that runs it, and numbers that do not agree stay in."
)

COLUMNS = (
    "claim",
    "where in the paper",
    "published",
    "measured",
    "difference",
    "verdict",
    "each seed",
    "command",
    "run",
    "commit",
    "machine",
    "hours",
)

COUNTED = {
    "agrees": "agree",
    "differs": "differ",
    "within": "within the published ± 2 s, with fewer than 3 seeds",
    "outside": "outside of that, with fewer than 3 seeds",
    "unknown": "without a published spread",
    "not comparable": "not comparable",
    "not run": "not run",
}
"""How many rows have a verdict of each kind, in words."""


@dataclass(frozen=True)
class Section:
    """A heading with a table, and figures.

    Attributes:
        title: the heading.
        text: paragraphs below it.
        tables: their titles are headings; one may have none.
        rows: every number's row under `COLUMNS` by the heading that it stands under, those of grids too.
        figures: those that say most first.
        missing: what cannot be drawn, and why.
        summary: what came out, in a line.
    """

    title: str
    text: Sequence[str]
    tables: Sequence[Table]
    rows: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    figures: Sequence[Plan] = ()
    missing: Sequence[str] = ()
    summary: str = ""


@dataclass(frozen=True)
class Document:
    """All of a report.

    Attributes:
        title: the heading.
        text: paragraphs below it.
        sections: first the tables whose full length was measured.
    """

    title: str
    text: Sequence[str]
    sections: Sequence[Section]

    def markdown(self) -> str:
        """Its text and tables."""
        parts = [f"# {marked(self.title)}", *map(marked, self.text)]
        for section in self.sections:
            parts += [f"## {marked(section.title)}", *map(marked, section.text)]
            for table in section.tables:
                parts += [*([f"### {marked(table.title)}"] if table.title else []), table.markdown()]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """The rows of all tables with published numbers, their table's title in front."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["table", "part", *COLUMNS])
        for section in self.sections:
            for block, rows in section.rows.items():
                writer.writerows(map(printable, (section.title, block, *row)) for row in rows)
        return text.getvalue()


def document(paths: Sequence[Path], names: Sequence[str] | None = None) -> Document:
    """Read every record below some folders and put it beside what was published.

    Args:
        paths: folders, at any depth above the records.
        names: of tables, or paths of their files; all that ship by default.

    Raises:
        DualpropError: if a folder is missing or holds no record, or for an unknown table.
    """
    read = [tables.read(name) for name in (names or list(tables.shipped()))]
    for path in paths:
        if not path.is_dir():
            raise DualpropError(f"runs={str(path)!r}: no folder is there")
    among = tables.records(paths)
    if not among:
        raise DualpropError(f"runs={', '.join(map(str, paths))}: no record is there")
    named, machines = folders((path for path, _, _ in among), paths), Machines()
    measured = {table.name: groups(table, tables.find(table, among)) for table in read}
    read.sort(key=lambda table: _place(lines(table, measured[table.name])))  # equals stay as they are
    sections = [_section(table, measured[table.name], named, machines) for table in read]
    used = {each.path for own in measured.values() for group in own for each in group.found}
    rest = [(path, record) for path, _, record in among if path not in used]
    if rest:
        text = ("Records that are cells of none of the tables above.",)
        sections.append(Section("Other runs", text, [others(rest, named, machines.letter)]))
    sections.append(Section("Machines", (), [machines.table()]))
    return Document(TITLE, (TEXT, RULE), sections)


def _place(own: Sequence[Line]) -> int:
    """The less, the more is known of a table: a verdict from seeds enough, full settings, anything, nothing."""
    known = (
        any(line.verdict.kind in ("agrees", "differs") for line in own),
        any(line.full for line in own),
        any(line.values for line in own),
        True,
    )
    return known.index(True)


def _section(
    table: tables.Table, measured: Sequence[Group], named: Mapping[Path, str], machines: Machines
) -> Section:
    """What is said of one table."""
    own = lines(table, measured)
    compared = [line for line in own if line.name in line.row.published]
    counts = Counter(line.verdict.kind for line in compared)
    text = [table.claim]
    if table.paper:
        text.append(f"Published in {', '.join(filter(None, (table.paper, table.place)))}.")
    summary = ", ".join(f"{counts[kind]} {said}" for kind, said in COUNTED.items() if counts[kind])
    if summary:
        text.append(f"Of {len(compared)} rows with a published number: {summary}.")
    if shortened := dict.fromkeys(group.shortened for group in measured if group.differences):
        text.append(
            f"Shortened, and therefore not the paper's: {'; '.join(shortened)}. Such rows are not compared."
        )
    gone = [group.row for group in measured if all(each.record.diverged for each in group.found)]
    silent = [row for row in table.rows if not any(line.row is row for line in own) and row not in gone]
    if silent:
        text.append(f"Rows without a published number that were not run: {len(silent)}, by {_command(table)}.")
    blocks: dict[str, list[Line]] = {}
    for line in own:
        blocks.setdefault(line.row.block, []).append(line)
    gridded = {
        block: grids([row for row in table.rows if row.block == block], said, gone)
        for block, said in blocks.items()
    }
    rows = {block: [_row(line, named, machines) for line in said] for block, said in blocks.items()}
    shown: list[Table] = []
    for block, made in gridded.items():
        if made:
            shown += [grid.table() for grid in made]
            continue
        beside = [row for row, line in zip(rows[block], blocks[block], strict=True) if line.published]
        alone = [line for line in blocks[block] if not line.published]
        shown += [Table(block, COLUMNS, beside, words=COLUMNS)] if beside else []
        lost = [row for row in gone if row.block == block and not row.published]
        shown += [columns("" if beside else block, alone, lost)] if alone else []
    if any(line.values and not line.published for line in own):
        text.append(
            "What has not been published stands in shorter tables; run, commit and command of each number are in "
            "the CSV file."
        )
    figures, missing = _figures(table, own, [group for group in measured if not gridded.get(group.row.block)])
    maps = grid_maps([grid for made in gridded.values() for grid in made])
    return Section(table.title, text, shown, rows, [*figures, *([maps] if maps else [])], missing, summary)


def _command(table: tables.Table) -> str:
    return table.rows[0].command.partition(" --")[0]


def _row(line: Line, named: Mapping[Path, str], machines: Machines) -> list[str]:
    environments = [environment_of(path) for path in line.paths]
    return [
        line.claim,
        line.where,
        line.published,
        line.measured,
        line.difference,
        line.judged,
        line.each,
        line.command,
        together([named[path] for path in line.paths]),
        listed(map(commit, environments)),
        listed(map(machines.letter, environments)),
        line.hours,
    ]


def _figures(table: tables.Table, own: Sequence[Line], measured: Sequence[Group]) -> tuple[list[Plan], list[str]]:
    """Those of a table, and what is missing."""
    trained = [group for group in measured if group.row.make == "training"]
    every = [
        Curves(group.label, group.row.rule, [each.record.epochs for each in group.found]) for group in trained
    ]
    recorded = [curves for curves in every if any(curves.runs)]
    plans: list[Plan | None] = [
        differences(
            metric.title,
            [
                (each.row.label, each.row.rule, *each.compared)
                for each in own
                if each.name == name and each.compared
            ],
        )
        for name, metric in table.metrics.items()
    ]
    plans += [learning_curves(recorded)]
    plans += [
        heat_maps(recorded, "cosine", "bp's gradient"),
        heat_maps(recorded, "own", "the rule's own true gradient"),
    ]
    plans += [bars(metric.title, _means(name, metric.scale, measured)) for name, metric in table.metrics.items()]
    kept = {}
    for group in trained:
        found = next(filter(None, (pictures_of(each.path) for each in group.found)), None)
        if found is not None:
            kept[group.label] = found
    plans += [filter_pictures(kept), dyad_pictures(kept)]
    without = [group.label for group in trained if group.label not in kept]
    missing = (
        [f"No pictures of filters and states of {', '.join(without)}: the records hold none."] if without else []
    )
    return [plan for plan in plans if plan is not None], missing


def _means(name: str, scale: float, measured: Sequence[Group]) -> list[tuple[str, str, float]]:
    """Label, rule and mean of a number of each group that is no training, whose curves say more."""
    found = []
    for group in measured:
        numbers = [each.numbers[name] for each in group.found if name in each.numbers]
        if numbers and group.row.make != "training":
            found.append((group.label, group.row.rule, scale * sum(numbers) / len(numbers)))
    return found
