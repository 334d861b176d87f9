"""`dualprop reproduce` as a person uses it."""

import json
import re

import pytest

TABLE = """
title = "Digits"
claim = "They learn."
metrics.test_accuracy = { title = "test accuracy %", scale = 100 }

[[blocks]]
settings = { data = "digits", hidden = [8], epochs = 4, lr = 0.01, alignment = false }
axes.rule = ["bp", "dp"]
published = [{ at.rule = "dp", values.test_accuracy = [90, 1], source = "a book" }]
"""


@pytest.fixture
def table(tmp_path):
    (tmp_path / "mine.toml").write_text(TABLE)
    return "mine.toml"


def test_a_shortened_table_says_so_before_and_after(dualprop, table, tmp_path, caplog):
    code, out, _ = dualprop("reproduce", table, "--seeds", "1", "--rules", "dp", "--epochs", "1", "--out", "o")
    assert code == 0
    assert re.search(r"\d (s|min|h) here, as a few steps of each kind of cell show", caplog.text)
    assert "schedules shortened to 1 of 4 epochs: not the table's setting" in caplog.text
    (line,) = [line for line in out.splitlines() if line.startswith("dp")]
    assert line.split()[1] == "1"
    assert line.endswith("90.00 ± 1.00  epochs 1, not 4")
    assert "records: o/mine" in out
    record = tmp_path / "o" / "mine" / "dp-epochs1-seed0"
    assert json.loads((record / "resolved.json").read_text())["rule"]["alpha"] == 0.5
    _, out, _ = dualprop("reproduce", table, "--list", "--epochs", "1", "--seeds", "1", "--out", "o")
    assert [line.split() for line in out.splitlines() if line[:2] in ("bp", "dp")] == [
        ["bp", "0", "not", "run"],
        ["dp", "0", "finished"],
    ]


def test_without_a_name_the_tables_are_listed(dualprop):
    code, out, _ = dualprop("reproduce")
    assert code == 0
    assert {"mnist-mlp", "cifar10-vgg16"} <= {line.split()[0] for line in out.splitlines() if line.strip()}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("mnist-mpl",), "unknown table 'mnist-mpl': did you mean 'mnist-mlp'"),
        (("mnist-mlp", "--rules", "dpp"), "rules='dpp': the table mnist-mlp has no such rule; did you mean"),
        (("mine.toml", "--budget", "1"), "budget='1': must be a time above 0"),
        (("mine.toml", "--budget", "0.0001s"), "budget: too small, one epoch of each of the 10 cells takes about"),
        (("mine.toml", "--budget", "1h", "--epochs", "1"), "epochs: not with budget"),
        (("mine.toml", "--seeds", "0"), "seeds=0: must be a whole number of at least 1"),
        (("mine.toml", "--jobs", "0"), "jobs=0: must be a whole number of at least 1"),
        (("mine.toml", "--out", "mine.toml"), "mine.toml"),
        (("mine.toml", "--data-root", "nowhere", "--data", "mnist"), "mnist: no "),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_nothing(dualprop, table, tmp_path, words, line):
    code, _, err = dualprop("reproduce", *words)
    last = [each for each in err.splitlines() if not each.startswith("measuring")]
    assert code == 2
    assert len(last) == 1
    assert line in last[0]
    assert {file.name for file in tmp_path.iterdir()} == {"mine.toml"}
