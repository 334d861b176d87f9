"""Tables of words: complete in each form, never broken inside a number, within 80 characters."""

import csv
import io

import pytest

from dualprop.studies._table import WIDTH, Table, show

COLUMNS = ("rule", "test accuracy %", "s / epoch", "÷ bp/GFLOP")
ROWS = [("ep-centred compiled", "93.42 ± 0.35", "1.23", "0.98"), ("bp", "97.10 ± 0.02", "12.3", "")]


def shown(capsys, table, remarks=()):
    show(table, remarks=remarks)
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", ["20", "60", "80", "300"])
def test_every_cell_is_whole_in_any_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    out = shown(capsys, Table("A title", COLUMNS, ROWS))
    for cell in ("A title", *(cell for row in ROWS for cell in row)):
        assert cell in out
    assert max(map(len, out.splitlines())) <= WIDTH


def test_names_of_columns_are_broken_above_short_cells(capsys):
    lines = shown(capsys, Table("", COLUMNS, ROWS)).splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["test", "s", "/", "÷", "bp/"],
        ["rule", "accuracy", "%", "epoch", "GFLOP"],
    ]
    ends = {
        line.rstrip().rfind(cell) + len(cell)
        for line, cell in zip(lines[3:5], ("93.42 ± 0.35", "97.10 ± 0.02"), strict=True)
    }
    assert len(ends) == 1  # numbers on the right


def test_a_wide_table_breaks_its_first_column_before_it_is_too_wide(capsys):
    numbers = tuple(f"{n}.000" for n in range(10, 20))  # ten times six characters: 72 with the gaps
    rows = [("bp compiled", *numbers), ("dp", *numbers)]
    out = shown(capsys, Table("", ("rule", *(f"c{n}" for n in range(10))), rows))
    assert max(map(len, out.splitlines())) <= WIDTH
    assert all(out.count(number) == 2 for number in numbers)
    assert "bp compiled" not in out
    assert "compiled 10.000" in out


def test_markdown_and_csv_hold_the_same_words():
    table = Table("A title", COLUMNS, ROWS)
    head, sides, *rows = table.markdown().splitlines()
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in (head, *rows)]
    assert cells == [COLUMNS, *ROWS]
    assert sides == "| --- | ---: | ---: | ---: |"
    assert [tuple(row) for row in csv.reader(io.StringIO(table.csv()))] == [COLUMNS, *ROWS]


def test_a_table_without_rows(capsys):
    table = Table("Nothing", ("a", "b"), [])
    assert table.markdown() == "| a | b |\n| --- | ---: |"
    assert "Nothing" in shown(capsys, table)


def test_remarks_are_broken_between_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [f"word{n}" for n in range(40)]
    lines = shown(capsys, Table("", ("a",), [("b",)]), [" ".join(words)]).splitlines()
    remark = lines[next(i for i, line in enumerate(lines) if line.startswith("- ")) :]
    assert " ".join(remark).split() == ["-", *words]
    assert all(line.startswith("  ") for line in remark[1:])
