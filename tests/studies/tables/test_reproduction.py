"""Making a table: what is missing and nothing else, budgets, and what is refused before any work."""

import json
import logging
import signal

import pytest
import torch

import dualprop as dp
from dualprop.errors import CheckpointError, DualpropError, Interrupted
from dualprop.studies import tables
from dualprop.studies.tables import plan, reproduction
from dualprop.studies.tables.makers import Training
from dualprop.studies.tables.plan import Request, cells, estimated, fitting, time_of
from dualprop.studies.tables.reproduction import reproduce
from dualprop.training.callbacks.display import Display

DIGITS = """
title = "Digits"
claim = "They learn."
metrics.test_accuracy = { title = "test accuracy %", scale = 100 }

[[blocks]]
settings = { data = "digits", hidden = [8], epochs = 4, lr = 0.01, alignment = false }
seeds = 2
axes.rule = ["bp", "dp"]
published = [{ at.rule = "bp", values.test_accuracy = [90, 1], source = "a book" }]
"""


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.INFO, logger="dualprop")
    logging.getLogger("dualprop").setLevel(logging.WARNING)


@pytest.fixture
def table(tmp_path):
    """A table of four small cells."""
    path = tmp_path / "digits-table.toml"
    path.write_text(DIGITS)
    return tables.read(path)


@pytest.fixture
def untouched(monkeypatch):
    """From here on no cell is made."""

    def use():
        def make(*_):
            raise AssertionError("a cell is made")

        monkeypatch.setattr(Training, "make", make)

    return use


@pytest.fixture
def second_an_epoch(monkeypatch):
    monkeypatch.setattr(Training, "seconds", lambda *_: 1.0)


QUICK = Request(seeds=1, epochs=1)


@pytest.mark.usefixtures("second_an_epoch")
def test_cells_are_ordinary_runs_and_none_is_made_twice(table, tmp_path, untouched):
    made = reproduce(table, tmp_path / "t", QUICK)
    assert [cell.path.name for cell in made.cells] == ["bp-epochs1-seed0", "dp-epochs1-seed0"]
    assert [cell.state for cell in made.cells] == ["finished"] * 2
    cell = made.cells[1]
    again = dp.train(cell.settings, tmp_path / "again", progress=False)
    assert cell.record.numbers["test_loss"] == again.test_loss
    words = made.words()
    accuracy = 100 * made.cells[0].record.numbers["test_accuracy"]
    assert words.columns == ("cell", "n", "test accuracy %", "published", "schedule")
    assert words.rows[0] == ("bp", "1", f"{accuracy:.2f}", "90.00 ± 1.00", "epochs 1, not 4")
    assert words.rows[1][3] == ""
    untouched()
    assert [cell.state for cell in reproduce(table, tmp_path / "t", QUICK).cells] == ["finished"] * 2
    moved = made.cells[0].path.rename(tmp_path / "t" / "under another name")
    assert reproduce(table, tmp_path / "t", QUICK).cells[0].path == moved


@pytest.mark.usefixtures("second_an_epoch")
def test_an_interrupted_cell_goes_on(table, tmp_path, monkeypatch):
    def stop(self, trainer):
        if trainer.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    logging.getLogger("dualprop").setLevel(logging.INFO)
    with monkeypatch.context() as patched:
        patched.setattr(Display, "epoch", stop)
        with pytest.raises(Interrupted, match="the same command goes on"):
            reproduce(table, tmp_path / "t", Request(rules=("dp",), seeds=1))
    (cell,) = cells(table, tmp_path / "t", Request(rules=("dp",), seeds=1))
    assert cell.state == "begun"
    assert [e["epoch"] for e in dp_metrics(cell.path)] == [1, 2]
    (cell,) = reproduce(table, tmp_path / "t", Request(rules=("dp",), seeds=1)).cells
    assert [e["epoch"] for e in dp_metrics(cell.path)] == [1, 2, 3, 4]
    whole = dp.train(cell.settings, tmp_path / "whole", progress=False)
    assert cell.record.numbers["test_loss"] == whole.test_loss


def dp_metrics(path):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.mark.usefixtures("second_an_epoch")
def test_a_budget_shortens_every_schedule_and_is_kept(table, tmp_path, monkeypatch, caplog):
    logging.getLogger("dualprop").setLevel(logging.INFO)
    made = reproduce(table, tmp_path / "t", budget=5.0)  # for 4 cells of 4 epochs
    assert {cell.settings.epochs for cell in made.cells} == {1}
    assert "schedules shortened to 1 of 4 epochs: not the table's setting" in caplog.text
    assert {row[-1] for row in made.words().rows} == {"epochs 1, not 4"}
    monkeypatch.setattr(Training, "seconds", lambda *_: 0.1)
    again = reproduce(table, tmp_path / "t", budget=5.0)
    assert [cell.path for cell in again.cells] == [cell.path for cell in made.cells]
    with pytest.raises(
        DualpropError, match=r"budget: too small, one epoch of each of the 4 cells takes about 0.4 s"
    ):
        reproduce(table, tmp_path / "other", budget=0.3)
    assert not (tmp_path / "other").exists()
    with pytest.raises(DualpropError, match="epochs: not with budget"):
        reproduce(table, tmp_path / "t", QUICK, budget=5.0)


def test_what_fits_is_the_same_part_of_every_schedule(table):
    todo = cells(table, table_folder := plan.Path("nowhere"), Request())
    assert not table_folder.exists()
    seconds = {"bp": 1.0, "dp": 3.0}  # 2 seeds of 4 epochs: 32 s
    assert fitting(todo, seconds, 32) == {"bp": 4, "dp": 4}
    assert fitting(todo, seconds, 31.9) == {"bp": 3, "dp": 3}
    assert fitting(todo, seconds, 8) == {"bp": 1, "dp": 1}
    with pytest.raises(DualpropError, match="takes about 8 s in one process"):
        fitting(todo, seconds, 7.9)


def test_a_few_steps_of_each_kind_are_measured(tmp_path, monkeypatch):
    path = tmp_path / "kinds.toml"
    path.write_text(
        DIGITS
        + """
        [[blocks]]
        name = "wide"
        settings = { data = "digits", hidden = [16] }
        axes.rule_settings.beta = [0.1, 0.2]
        axes.lr = [0.1, 0.2]
        """
    )
    measured = []
    monkeypatch.setattr(Training, "seconds", lambda _, settings: measured.append(settings.rule) or 2.0)
    todo = cells(tables.read(path), tmp_path / "t", Request())
    seconds = estimated(todo, lambda _: None)
    assert measured == ["bp", "dp", "dp"]
    assert set(seconds) == {"bp", "dp", *(f"wide-beta{b}-lr{lr}" for b in (0.1, 0.2) for lr in (0.1, 0.2))}
    assert plan.total(todo, seconds) == 2 * (4 * 4 + 4 * 5 * 10)


def test_a_training_is_timed(table):
    (cell, *_) = cells(table, plan.Path("nowhere"), Request())
    assert 0 < cell.row.maker.seconds(cell.settings) < 60


@pytest.mark.usefixtures("second_an_epoch")
def test_what_diverged_is_recorded_and_not_made_again(table, tmp_path, untouched):
    request = Request(seeds=1, rules=("bp",), common={"lr": 1e30, "optimizer": "sgd"})
    made = reproduce(table, tmp_path / "t", request)
    (cell,) = made.cells
    assert cell.state == "diverged"
    assert "the loss became" in cell.record.diverged
    assert made.failed == {cell.path.name: cell.record.diverged}
    assert made.words().columns == ("cell", "n", "published", "schedule", "left")
    assert made.words().rows == [("bp", "0", "90.00 ± 1.00", "full", "1 diverged")]
    untouched()
    assert reproduce(table, tmp_path / "t", request).cells[0].state == "diverged"


@pytest.mark.usefixtures("second_an_epoch")
def test_other_settings_are_other_cells(table, tmp_path):
    made = reproduce(table, tmp_path / "t", Request(rules=("dp",), seeds=1, epochs=1, common={"lr": 0.02}))
    assert made.cells[0].path.name == "dp-lr0.02-epochs1-seed0"
    assert made.cells[0].state == "finished"
    assert tables.find(table, tables.records([tmp_path])) == []
    assert [cell.state for cell in cells(table, tmp_path / "t", QUICK)] == ["not run"] * 2


def test_nothing_is_overwritten(table, tmp_path):
    taken = tmp_path / "t" / "dp-seed0"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(
        DualpropError, match="dp-seed0: holds something else than this cell; choose another folder"
    ):
        reproduce(table, tmp_path / "t")
    assert [file.name for file in (tmp_path / "t").rglob("*") if file.is_file()] == ["mine.txt"]
    dp.train(dp.Settings(hidden=(4,), epochs=1), tmp_path / "run", progress=False)
    with pytest.raises(DualpropError, match="run: is a run folder; choose another"):
        reproduce(table, tmp_path / "run")
    (tmp_path / "t2").mkdir()
    (tmp_path / "t2" / "budgets.json").write_text('{"plans": [3]}')
    with pytest.raises(CheckpointError, match=r"budgets.json: damaged \(plans=\[3\]: must be a list of dicts"):
        reproduce(table, tmp_path / "t2", budget=5.0)


@pytest.mark.parametrize("words", ["", "30", "m", "-3m", "0s", "3 weeks", "nanm"])
def test_what_is_no_time(words):
    with pytest.raises(
        DualpropError, match=r"budget='.*': must be a time above 0, for example 90s, 30m, 2h or 1d"
    ):
        time_of(words)


def test_what_is_no_request(table):
    with pytest.raises(
        DualpropError, match="rules='pb': the table digits-table has no such rule; did you mean 'dp' or 'bp'"
    ):
        cells(table, plan.Path("nowhere"), Request(rules=("pb",)))
    with pytest.raises(DualpropError, match="seeds=0: must be"):
        Request(seeds=0)
    with pytest.raises(DualpropError, match="lr=-1: must be"):
        cells(table, plan.Path("nowhere"), Request(common={"lr": -1}))


@pytest.mark.slow
@pytest.mark.usefixtures("second_an_epoch")
def test_side_by_side_they_are_the_same(table, tmp_path):
    two = reproduce(table, tmp_path / "two", QUICK, jobs=2).cells
    one = reproduce(table, tmp_path / "one", QUICK).cells
    assert [cell.record.numbers["test_loss"] for cell in two] == [cell.record.numbers["test_loss"] for cell in one]


@pytest.mark.parametrize(
    ("threads", "timed", "asked", "expected"),
    [(3, False, None, 3), (3, True, None, 1), (1, False, None, 1), (3, False, 2, 2)],
)
@pytest.mark.usefixtures("second_an_epoch")
def test_as_many_cells_side_by_side_as_threads_unless_time_is_measured(
    threads, timed, asked, expected, table, tmp_path, monkeypatch
):
    chosen = []
    monkeypatch.setattr(reproduction, "work", lambda todo, jobs, prepare: chosen.append(jobs) or ())
    monkeypatch.setattr(Training, "timed", timed)
    torch.set_num_threads(threads)
    reproduce(table, tmp_path / "t", Request(epochs=1), jobs=asked)
    assert chosen == [expected]


def test_time_is_not_measured_side_by_side(tmp_path):
    with pytest.raises(
        DualpropError, match="jobs=2: this table measures time, so one cell is made after the other"
    ):
        reproduce(tables.read("runtime"), tmp_path / "t", jobs=2)
    assert not (tmp_path / "t").exists()
