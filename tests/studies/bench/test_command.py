"""`dualprop bench` as a person uses it."""

import json
import os
import signal
import sys

import pytest

import dualprop as dp
from dualprop import cli
from dualprop.studies.bench import ceilings
from dualprop.studies.bench import run as measurement
from dualprop.studies.bench.report import Measurements

QUICK = ("--nets", "mlp", "--hidden", "8", "--batch-size", "4", "--repeats", "1", "--budget", "100")


@pytest.fixture
def bench(monkeypatch, capsys, tmp_path):
    """Run `dualprop bench` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, small in {"SIDE": 64, "BATCH": 2, "CHANNELS": 8, "COPIED": 2**16}.items():
        monkeypatch.setattr(ceilings, name, small)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dualprop", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        return exit.value.code or 0, out, err

    return run


@pytest.mark.slow
def test_it_measures_every_rule_and_writes_what_it_says(bench, tmp_path):
    code, out, err = bench(*QUICK, "--precisions", "float32", "--out", "b")
    assert code == 0, err
    report = Measurements.from_dict(json.loads((tmp_path / "b" / "bench.json").read_text()))
    names = [row.rule for row in report.rows]
    assert names[0] == "bp"
    assert {*dp.RULES, "bp-rule", "convert", "bp-fused", "dp-fused"} == set(names)
    assert all(len(row.seconds) == len(row.bp_seconds) == 1 for row in report.rows)
    assert all(row.batch_size == 4 and row.peak_bytes > 0 for row in report.rows)
    bp, dual = report.rows[0], report.rows[names.index("dp")]
    assert bp.gradient_bytes == 4 * (784 * 8 + 8 + 8 * 10 + 10)
    assert bp.operations == dual.operations == 2 * 4 * (2 * 784 * 8 + 3 * 8 * 10)
    assert {c.work for c in report.ceilings} >= {"matrix product", "convolution", "memory copy"}
    assert report.plan["repeats"] == 1
    assert "fewer than 10 pairs" in out
    assert (tmp_path / "b" / "table.md").read_text() == report.markdown()
    for name in ("bench.json", "bench.png", "table.md"):
        assert f"b/{name}" in out
        assert (tmp_path / "b" / name).stat().st_size > 100


def test_a_rule_that_cannot_be_measured_is_left_out(bench, tmp_path, monkeypatch):
    class Diverging(dp.Backprop):
        """It does not settle."""

        def updates(self, x, y):
            raise dp.DivergenceError("the free phase diverged at step 3, layer 1")

    monkeypatch.setitem(dp.RULES, "toy", dp.Method(Diverging, "a toy"))
    words = (
        "--rules",
        "bp,toy,dp",
        "--precisions",
        "float32",
        "--energy",
        "multiply_add=1;bit=0;write=0",
        "--out",
        "b",
    )
    code, out, err = bench(*QUICK, *words)
    line = "mlp, float32: toy left out, the free phase diverged at step 3, layer 1"
    assert (code, line in err) == (0, True)
    report = Measurements.from_dict(json.loads((tmp_path / "b" / "bench.json").read_text()))
    assert [row.rule for row in report.rows] == ["bp", "dp"]
    assert report.left_out == [line]
    bp, dual = report.rows
    assert bp.costs == {}  # plain PyTorch, which has no edges
    assert dual.costs["multiply_adds"] == dual.costs["picojoules"] == 784 * 8 + 2 * 8 * 10
    assert dual.costs["weight_writes"] == (784 * 8 + 8 * 10) / 4
    assert "what hardware would pay" in out
    assert f"- {line}" in out


@pytest.mark.slow
def test_other_places_for_numbers_and_chart(bench, tmp_path):
    code, out, _ = bench(*QUICK, "--rules", "dp,convert", "--json", "n.json", "--chart", "c.svg")
    assert code == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("bench-")
    assert [path.name for path in folder.iterdir()] == ["table.md"]
    rows = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert [(row["precision"], row["rule"]) for row in rows] == [
        ("float32", "dp"),
        ("float32", "convert"),
        ("bf16", "dp"),
        ("bf16", "convert"),
    ]
    assert (tmp_path / "c.svg").read_bytes().startswith(b"<?xml")
    assert "numbers: n.json\npicture: c.svg" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--rules", "dpp"), "rule 'dpp': did you mean 'dp'"),
        (("--rules", "dp,dp"), "rules="),
        (("--rules", ","), "rules="),
        (("--nets", "vgg61"), "'vgg16'"),
        (("--nets", ""), "nets="),
        (("--nets", "mlp,hopfield_mlp"), "nets='hopfield_mlp': has cycles"),
        (("--precisions", "fp8"), "precision 'fp8'"),
        (("--precisions", "bf16,bf16"), "precisions="),
        (("--repeats", "0"), "repeats=0"),
        (("--batch-size", "0"), "batch_size=0"),
        (("--budget", "0"), "budget=0"),
        (("--budget", "inf"), "budget=inf"),
        (("--hidden", "8,x"), "'8,x'"),
        (("--hidden", "0"), "hidden=0: must be a list of whole numbers of at least 1"),
        (("--device", "nowhere"), "device='nowhere'"),
        (("--out", "taken"), "out=taken"),
        (("--json", "taken"), "json=taken"),
        (("--json", "nowhere/n.json"), "json=nowhere/n.json"),
        (("--chart", "nowhere/c.png"), "chart=nowhere/c.png"),
        (("--chart", "c.gif"), "chart=c.gif"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(bench, tmp_path, arguments, named):
    (tmp_path / "taken").mkdir()
    code, out, err = bench(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("dualprop: error: ")
    assert named in err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_compiled_rows_beside_the_others():
    """Which rows there are; whether torch.compile works is measured where a compiler is."""
    from dualprop.studies.bench.plan import Plan

    rows = Plan(rules=("bp", "dp", "convert", "dp-fused"), compile=True).rows()
    assert rows == [
        ("bp", False),
        ("bp", True),
        ("dp", False),
        ("dp", True),
        ("convert", False),
        ("convert", True),
        ("dp-fused", False),
    ]


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(bench, monkeypatch, tmp_path):
    measure = measurement.timed

    def then_stop(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return measure(*arguments)

    monkeypatch.setattr(measurement, "timed", then_stop)
    code, _, err = bench(*QUICK, "--rules", "bp,dp", "--out", "b")
    assert code == 130
    assert err.splitlines()[-1] == "dualprop: stopped; what had been measured is in b/bench.json"
    assert len(json.loads((tmp_path / "b" / "bench.json").read_text())["rows"]) == 1
