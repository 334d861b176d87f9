"""benchmarks/README.md from its template and the numbers in records/: python benchmarks/readme.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

import jinja2

from dualprop.studies._table import Table
from dualprop.studies.bench.report import NOTES, Measurements, Row

HERE = Path(__file__).parent


def record(name: str) -> Measurements:
    """What one `dualprop bench` has kept."""
    return Measurements.read(HERE / "records" / f"{name}.json")


def tables(name: str) -> str:
    """All of one record: the machine, a table for each net and precision, and what follows from them."""
    kept = record(name)
    parts = [f"Measured on {kept.machine()}."]
    for table in kept.shown():
        parts += [f"**{table.title}**", table.markdown()]
    if remarks := kept.remarks():
        parts.append("\n".join(f"- {line}" for line in remarks))
    return "\n\n".join(parts)


def beside_bp(rule: str, records: dict[str, str]) -> str:
    """The median ratio of a rule's step to bp's, with its quartiles and n: nets and precisions by records.

    Args:
        rule: its name.
        records: their names by the heads of the columns.
    """
    kept = {head: record(name).tables() for head, name in records.items()}
    rows = []
    for key in dict.fromkeys(key for of_one in kept.values() for key in of_one):
        cells = []
        for of_one in kept.values():
            row = next((row for row in of_one.get(key, ()) if row.rule == rule), None)
            cells.append("" if row is None else _ratio(row))
        rows.append((", ".join(key), *cells))
    return Table("", (f"{rule} ÷ bp", *kept), rows).markdown()


def _ratio(row: Row) -> str:
    ratio = row.ratio
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f}, n {len(row.seconds)})"


def made() -> str:
    """The text of README.md."""
    template = (HERE / "README.md.jinja").read_text(encoding="utf-8")
    text = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    notes = "\n".join(f"- {line}" for line in NOTES)
    return text.from_string(template).render(tables=tables, beside_bp=beside_bp, notes=notes)


if __name__ == "__main__":
    readme = HERE / "README.md"
    if "--check" not in sys.argv[1:]:
        readme.write_text(made(), encoding="utf-8")
    elif readme.read_text(encoding="utf-8") != made():
        sys.exit("benchmarks/README.md is not what records and template give: python benchmarks/readme.py")
