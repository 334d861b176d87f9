"""Comparisons from records of runs: what the table says, and on what it was measured."""

import json
import math

import pytest

import dualprop as dp
from dualprop.studies.report.side_by_side import Report
from tests.studies.bench.test_report import ENVIRONMENT


@pytest.fixture
def run(tmp_path):
    """Write a finished run folder; its path."""

    def write(
        rule,
        seed=0,
        *,
        accuracies=(0.5, 0.75),
        test=0.75,
        top5=None,
        classes=10,
        cosine=None,
        own=None,
        **environment,
    ):
        path = tmp_path / "runs" / f"{rule}-seed{seed}"
        path.mkdir(parents=True)
        angles = {name: c for name, c in (("cosine", cosine), ("own", own)) if c is not None}
        own_numbers = {"loss": 0.1, "accuracy": 0.5, **angles}
        epochs = [
            {"kind": "epoch", "step": n, "epoch": n, "val_accuracy": a, **own_numbers}
            for n, a in enumerate(accuracies, 1)
        ]
        tested = {
            "kind": "test",
            "step": len(accuracies),
            "epoch": 1,
            "accuracy": test,
            "loss": 0.2,
            **({} if top5 is None else {"accuracy_top5": top5}),
        }
        files = {
            "settings": dp.Settings(rule=rule, seed=seed, epochs=len(accuracies), hidden=(8,)).as_dict(),
            "environment": {**ENVIRONMENT, **environment},
            "result": {
                "run": "",
                "test_accuracy": test,
                "test_loss": 0.2,
                "best_epoch": 1,
                "val_accuracy": accuracies[0],
                "seconds_per_epoch": 2.0,
                "test_accuracy_top5": top5,
            },
            "resolved": {
                "net": {"num_classes": classes},
                "rule": {},
                "optimizer": {},
                "device": "cpu",
                "threads": 1,
            },
        }
        for name, values in files.items():
            (path / f"{name}.json").write_text(json.dumps(values))
        (path / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in (*epochs, tested)))
        return path

    return write


def where(report):
    lines = report.measured()
    assert all(f"\n- {line}\n" in report.markdown() for line in lines)
    return lines


def test_a_row_is_the_mean_over_its_seeds(run):
    report = Report.of([run("bp"), run("dp", 0, test=0.7), run("dp", 1, test=0.8)])
    table = report.table()
    assert table.columns == ("rule", "seeds", "test accuracy %", "s / epoch", "time ÷ bp")
    assert table.rows == [("bp", "1", "75.00", "2", "1.00"), ("dp", "2", "75.00 ± 7.07", "2", "1.00")]


def test_top_5_is_told_of_more_than_ten_classes(run):
    report = Report.of([run("bp", top5=0.9, classes=100), run("dp", top5=0.5, classes=100)])
    assert [row[3] for row in report.table().rows] == ["90.00", "50.00"]
    assert "top-5 %" not in Report.of([run("ep", top5=0.9)]).table().columns


def test_the_machine_is_that_of_the_runs(run):
    report = Report.of([run("bp"), run("dp")])
    line = (
        "Measured on A processor, 2 cores, 2 threads, Python 3.11.0, dualprop 0.1.0, torch 2.10.0, "
        "commit 0123456789 with changes."
    )
    assert where(report) == [line]
    assert report.remarks() == []


def test_several_machines_are_told_apart(run):
    paths = [
        run("bp", 0),
        run("bp", 1, threads=1),
        run("dp", 0),
        run("dp", 1, threads=1),
        run("ep", 0),
        run("ep", 1),
    ]
    first, second, seconds = where(Report.of(paths))
    assert "2 threads" in first
    assert first.endswith(": bp (seed 0), dp (seed 0) and ep.")
    assert "1 thread," in second
    assert second.endswith(": bp (seed 1) and dp (seed 1).")
    assert seconds == "Seconds of different machines do not compare."
    assert where(Report.of(paths[:4]))[0].endswith(": every rule (seed 0).")


def test_a_choice_that_differs_between_seeds_is_told_of_the_seeds(run):
    first, second = run("dp", 0), run("dp", 1)
    settings = json.loads((second / "settings.json").read_text())
    (second / "settings.json").write_text(json.dumps({**settings, "lr": 0.123456}))
    lines = Report.of([first, second]).remarks()
    assert f"lr: {settings['lr']:.4g} for dp (seed 0); 0.1235 for dp (seed 1)" in lines


def test_an_angle_that_is_not_defined_is_not_drawn_as_zero(run, tmp_path):
    report = Report.of([run("bp", cosine=[1.0, math.nan]), run("dp", cosine=[0.5, 1.0000001])])
    report.write(tmp_path)
    assert (tmp_path / "alignment.png").read_bytes().startswith(b"\x89PNG")
    from dualprop.studies._figure import angle

    assert math.isnan(angle(math.nan))
    assert (angle(0.5), angle(1.0000001)) == (pytest.approx(60), 0)


def test_the_cosine_to_the_own_gradient_stands_beside_that_to_bp(run, tmp_path):
    report = Report.of([run("bp", cosine=[1.0, 1.0]), run("ep", cosine=[0.1, 0.3], own=[0.9, 0.7])])
    table = report.table()
    columns = [table.columns.index(f"cosine to {name}") for name in ("bp", "own gradient")]
    assert [[row[column] for column in columns] for row in table.rows] == [["1.000", ""], ["0.200", "0.800"]]
    report.write(tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "alignment-own.png",
        "alignment.png",
        "learning-curves.png",
    }


@pytest.mark.parametrize("accuracies", [(0.9,), (0.5, 1.0), (1.0, 1.0)])
def test_pictures_of_few_epochs_and_of_errors_of_zero(run, tmp_path, accuracies, recwarn):
    Report.of([run("bp", accuracies=accuracies)]).write(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["learning-curves.png", "table.csv", "table.md"]
    assert [str(warning.message) for warning in recwarn if issubclass(warning.category, UserWarning)] == []
