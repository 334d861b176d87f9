"""A report from records: every published number has its row, whatever state its records are in."""

import csv
import io
import json
import logging

import pytest

from dualprop.errors import DualpropError
from dualprop.studies.report.document import document
from tests.studies.report.records import keep_pictures, record, table_file


@pytest.fixture
def runs(tmp_path):
    """An empty folder for records."""
    return tmp_path / "runs"


def rows(runs, table="Digits"):
    """The report's rows of a table by claim, as it has them in CSV."""
    made = document([runs], [str(table_file(runs.parent))])
    found = list(csv.DictReader(io.StringIO(made.csv())))
    assert {row["table"] for row in found} <= {table}
    return found


def test_a_row_for_every_published_number(runs):
    for seed, test in enumerate((0.91, 0.92, 0.93)):
        record(runs, f"bp-{seed}", "bp", seed, test)
    record(runs, "anything", "dp", 7, 0.8)
    bp, dp, l_dp = rows(runs)
    assert bp["claim"] == "bp: test accuracy %"
    assert bp["where in the paper"] == "Table 1"
    assert (bp["published"], bp["measured"]) == ("90.00 ± 0.50 (n = 5)", "92.00 ± 1.00 (n = 3)")
    assert bp["difference"] == "+2.00 [+0.76, +3.24]"  # 2 √(1/3 + 0.05) = 1.238
    assert bp["verdict"] == "differs"
    assert bp["each seed"] == "91.00, 92.00, 93.00 (seeds 0, 1, 2)"
    assert bp["run"] == "runs/bp-{0,1,2}"
    assert (bp["commit"], bp["machine"], bp["hours"]) == (
        "01234567+",
        "A",
        "6.00",
    )  # 3 of 4 epochs of half an hour
    assert bp["command"].startswith("dualprop reproduce ")
    assert (dp["verdict"], dp["each seed"]) == ("n = 1, outside published ± 2 s", "80.00 (seed 7)")
    assert (l_dp["verdict"], l_dp["published"], l_dp["measured"]) == ("not run", "90.00 (n = 5)", "")


def test_a_shortened_schedule_is_never_compared(runs):
    for seed in range(3):
        record(runs, f"short-{seed}", "dp", seed, 0.9, epochs=2)
    record(runs, "full", "dp", 0, 0.9)
    _, full, short, _ = rows(runs)
    assert full["verdict"] == "n = 1, within published ± 2 s"
    assert short["verdict"] == "not comparable: schedule shortened (epochs 2 of 4)"
    assert (short["measured"], short["difference"]) == ("90.00 ± 0.00 (n = 3)", "")
    assert short["command"] == f"{full['command']} --epochs 2"


def test_the_head_says_that_schedules_were_shortened_and_full_tables_come_first(runs):
    record(runs, "short", "dp", 0, 0.9, epochs=2)
    small = str(table_file(runs.parent))
    text = document([runs], ["mnist-mlp", small]).markdown()
    assert text.index("## Digits") < text.index("## MNIST")  # nothing of which was run
    assert "Shortened, and therefore not the paper's: epochs 2 of 4." in text
    full = runs.parent / "full.toml"
    full.write_text(
        table_file(runs.parent).read_text().replace('"Digits"', '"Full"').replace("epochs = 4", "epochs = 2")
    )
    text = document([runs], [small, str(full)]).markdown()
    assert text.index("## Full") < text.index("## Digits")


def test_seeds_that_are_missing_unfinished_double_or_diverged_are_told(runs, caplog):
    record(runs, "a", "dp", 0, 0.9)
    record(runs, "b", "dp", 5, 0.9)
    record(runs, "again", "dp", 5, 0.1)
    record(runs, "half", "dp", 9, finished=False)
    gone = record(runs, "gone", "bp", 1, finished=False)
    (gone / "diverged.json").write_text(json.dumps({"error": "the loss became nan"}))
    with caplog.at_level(logging.WARNING):
        bp, dp, _ = rows(runs)
    assert dp["measured"] == "50.00 ± 56.57 (n = 2)"
    assert dp["verdict"].endswith("published ± 2 s; seed 9 not finished")
    assert bp["verdict"] == "seed 1 diverged: the loss became nan"
    assert bp["measured"] == ""
    assert [r.getMessage().split(": ")[1] for r in caplog.records] == [
        f"left out, another record of the seed of {runs / 'again'}"
    ]


def test_damaged_lines_and_records_are_left_out_with_a_warning_that_counts_them(runs, caplog):
    whole = record(runs, "whole", "dp", 0, 0.9)
    for seed, damage in enumerate(('{"kind": "epo', "[1]\n", '{"kind": "epoch", "step": 1, "loss": "<b>"}\n'), 1):
        with (record(runs, f"half-{seed}", "dp", seed, 0.9) / "metrics.jsonl").open("a") as file:
            file.write(damage)
    for name, file in (("bad-settings", "settings.json"), ("bad-environment", "environment.json")):
        (record(runs, name, "bp", 0) / file).write_text("{")
    with caplog.at_level(logging.WARNING):
        bp, dp, _ = rows(runs)
    assert dp["measured"] == "90.00 ± 0.00 (n = 4)"
    assert bp["machine"] == ""
    said = [r.getMessage() for r in caplog.records]
    assert all("\n" not in line for line in said)
    for seed in (1, 2, 3):
        assert any(f"half-{seed}" in line and "1 line that is no record" in line for line in said), seed
    assert any("bad-settings" in line for line in said)
    assert any("bad-environment" in line for line in said)
    assert not any(str(whole) in line for line in said)


def test_epochs_of_other_numbers_are_no_curve(runs, caplog):
    path = record(runs, "odd", "dp", 0, 0.9)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    lines[3]["val_accuracy"], lines[3]["cosine"] = [0.5], 3
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with caplog.at_level(logging.WARNING):
        section, *_ = document([runs], [str(table_file(runs.parent))]).sections
    assert any("of other numbers left out" in r.getMessage() for r in caplog.records)
    curves = next(plan.figure for plan in section.figures if plan.figure.title == "Learning curves")
    assert [row[0] for row in curves.data.rows] == ["1", "2", "3"]


def test_runs_of_no_table_have_a_line_each_that_differs_in_more_than_its_seed(runs):
    record(runs, "cell", "dp", 0, 0.9)
    for seed in (0, 1):
        record(runs, f"other-{seed}", "dp", seed, 0.5 + 0.1 * seed, settings={"lr": 0.5})
    record(runs, "third", "dp", 0, 0.4, settings={"lr": 0.25, "hidden": (3,)})
    sections = document([runs], [str(table_file(runs.parent))]).sections
    others = next(section for section in sections if section.title == "Other runs")
    assert [row[:3] for row in others.tables[0].rows] == [
        ("dp on digits, mlp-8, 4 epochs, lr 0.5", "55.00 ± 7.07 (n = 2)", "runs/other-{0,1}"),
        ("dp on digits, mlp-3, 4 epochs, lr 0.25", "40.00 (n = 1)", "runs/third"),
    ]


def test_names_from_strangers_are_words_in_every_format(runs):
    name = "a|b<script>`x`[y](z)\x1b"
    record(runs, name, "dp", 0, 0.9)
    made = document([runs], [str(table_file(runs.parent))])
    assert r"runs/a\|b&lt;script>\`x\`[y]\(z)\x1b" in made.markdown()
    assert "\x1b" not in made.markdown() + made.csv()


@pytest.mark.parametrize(
    ("paths", "names", "why"),
    [
        (["nowhere"], None, "no folder is there"),
        (["."], None, "no record is there"),
        (["."], ["mnist-mpl"], "mnist-mlp"),
        (["."], ["no.toml"], "no.toml"),
    ],
)
def test_what_cannot_be_reported_is_one_line(tmp_path, paths, names, why):
    with pytest.raises(DualpropError, match=why) as error:
        document([tmp_path / path for path in paths], names)
    assert "\n" not in str(error.value)


def test_figures_say_what_they_have_and_what_is_missing(runs):
    keep_pictures(record(runs, "with", "dp", 0, 0.9))
    record(runs, "without", "bp", 0, 0.9)
    section, *_ = document([runs], [str(table_file(runs.parent))]).sections
    assert [plan.figure.title for plan in section.figures] == [
        "Differences",
        "Learning curves",
        "Alignment with bp's gradient",
        "First-layer filters",
        "Dyads",
    ]
    assert section.missing == ["No pictures of filters and states of bp: the records hold none."]
    by_title = {plan.figure.title: plan.figure.data for plan in section.figures}
    assert by_title["Differences"].rows == [("bp", "+0 ± 1"), ("dp", "+0 ± 1")]
    assert by_title["Learning curves"].columns == ("epoch", "bp", "dp")
    assert by_title["Learning curves"].rows[-1] == ("4", "10", "10")  # 100 (1 - 0.9)
    assert by_title["Alignment with bp's gradient"].rows[2] == ("dp", "1", "53.13", "36.87", "25.84")
    assert by_title["Dyads"].rows[0][-1] == "12.50"
    assert len(by_title["First-layer filters"].rows) == 8


GRID = """
title = "Rates"
claim = "They differ."
metrics.test_accuracy = { title = "test accuracy %", scale = 100 }
metrics.test_loss = { title = "test loss" }

[[blocks]]
title = "Digits"
settings = { data = "digits", hidden = [8], epochs = 4 }
seeds = 2
axes.rule = ["bp", "dp"]
axes.lr = [0.1, 0.01]
"""


def test_what_was_not_published_is_a_grid(runs, tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text(GRID)
    for seed, test in ((0, 0.9), (1, 0.8)):
        record(runs, f"a{seed}", "bp", seed, test, settings={"lr": 0.1})
    record(runs, "b", "dp", 0, 0.7, settings={"lr": 0.01})
    made = document([runs], [str(path)])
    section = made.sections[0]
    accuracy, *_ = section.tables
    assert accuracy.title == "Digits: test accuracy % (n = 1 to 2)"
    assert accuracy.columns == ("", "lr 0.1", "lr 0.01")
    assert accuracy.rows == [("bp", "85.00 ± 7.07", ""), ("dp", "", "70.00")]
    assert "run, commit and command of each number are in the CSV file" in made.markdown()
    assert "not run: 2" in made.markdown()
    found = [row for row in csv.DictReader(io.StringIO(made.csv())) if "accuracy" in row["claim"]]
    assert [(row["claim"], row["part"], row["run"]) for row in found] == [
        ("bp, lr 0.1: test accuracy %", "Digits", "runs/a{0,1}"),
        ("dp, lr 0.01: test accuracy %", "Digits", "runs/b"),
    ]
    assert [plan.figure.title for plan in section.figures][-1] == "Grids"


def test_what_diverged_is_said_in_its_place(runs, tmp_path):
    path = tmp_path / "rates.toml"
    path.write_text(GRID)
    record(runs, "a", "bp", 0, 0.9, settings={"lr": 0.1})
    (record(runs, "b", "dp", 0, settings={"lr": 0.1}, finished=False) / "diverged.json").write_text(
        '{"error": "at step 3 the loss became nan"}'
    )
    made = document([runs], [str(path)])
    assert made.sections[0].tables[0].rows == [("bp", "90.00", ""), ("dp", "diverged", "")]
    assert "not run: 2" in made.markdown()


def test_what_was_not_published_has_a_row_for_each_cell_where_there_is_one_axis(runs, tmp_path):
    path = tmp_path / "rules.toml"
    published = 'published = [{ at.rule = "l-dp", values.test_accuracy = 90 }]'
    one = GRID.replace("axes.lr = [0.1, 0.01]\n", published).replace('["bp", "dp"]', '["bp", "dp", "l-dp"]')
    path.write_text(one)
    record(runs, "a", "bp", 0, 0.9)
    record(runs, "b", "bp", 1, 0.8)
    record(runs, "e", "l-dp", 0, 0.9)
    (record(runs, "c", "dp", 0, finished=False) / "diverged.json").write_text('{"error": "nan"}')
    made = document([runs], [str(path)])
    compared, others = made.sections[0].tables
    assert [row[0] for row in compared.rows] == ["l-dp: test accuracy %"]
    assert others.title == "Not published (n = 1 to 2)"
    assert others.columns == ("", "test accuracy %", "test loss")
    assert [row[:2] for row in others.rows] == [("bp", "85.00 ± 7.07"), ("l-dp", ""), ("dp", "diverged")]
    assert "run, commit and command of each number are in the CSV file" in made.markdown()
    assert len(list(csv.DictReader(io.StringIO(made.csv())))) == 4  # two numbers of bp, two of l-dp
