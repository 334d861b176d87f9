"""Tables, remarks, JSON and the chart, from made-up numbers."""

import json

import pytest

import dualprop as dp
from dualprop.studies.bench.ceilings import Ceiling
from dualprop.studies.bench.chart import draw
from dualprop.studies.bench.render import render
from dualprop.studies.bench.report import COLUMNS, Measurements, Row

ENVIRONMENT = {
    "date": "2030-01-02T03:04:05+00:00",
    "python": "3.11.0",
    "versions": {"dualprop": "0.1.0", "torch": "2.10.0"},
    "processor": "A processor",
    "cores": 2,
    "threads": 2,
    "accelerator": None,
    "git_commit": "0123456789abcdef",
    "git_dirty": True,
}
CEILINGS = [
    Ceiling("matrix product", "float32", "GFLOP/s", 4e9, [0.02, 0.04, 0.08]),  # 100 GFLOP/s
    Ceiling("matrix product, oneDNN", "float32", "GFLOP/s", 4e9, [0.02, 0.02, 0.02]),  # 200
    Ceiling("convolution", "float32", "GFLOP/s", 4e9, [0.01]),  # 400, but no matrix product
    Ceiling("matrix product", "bf16", "GFLOP/s", 4e9, [0.005]),
    Ceiling("memory copy", "bytes", "GB/s", 1e9, [0.1]),
]


def row(rule, seconds, bp_seconds, *, precision="float32", peak=8_000_000, operations=10**9):
    return Row("mlp", precision, rule, 100, seconds, bp_seconds, operations, peak, 4_000_000, 22.0, 10**9)


@pytest.fixture
def report():
    rows = [
        row("bp", [0.1] * 10, [0.1] * 10),
        row("dp", [0.02, 0.09, 0.04], [0.01, 0.03, 0.04], peak=6_000_000),
        row("convert", [0.4, 0.4], [0.1, 0.1], peak=None),
        row("dp-fused", [0.1], [0.1], peak=1_500_000),
        row("bp", [0.1] * 10, [0.1] * 10, precision="bf16"),
    ]
    return Measurements(ENVIRONMENT, {"repeats": 10, "nets": ["mlp"]}, CEILINGS, rows)


def test_the_ceiling_is_the_fastest_matrix_product(report):
    assert report.ceiling("float32") == pytest.approx(200)
    assert report.ceiling("bf16") == pytest.approx(800)


def test_what_hardware_would_pay_is_a_table_of_its_own(report):
    report.rows[1].costs.update(multiply_adds=90.0, picojoules=1500.0, zeros_up=0.25)
    (paid,) = [table for table in report.shown() if "hardware" in table.title]
    assert dict(zip(paid.columns, paid.rows[0], strict=True)) == {
        "rule": "dp",
        "MACs / sample": "90",
        "bits / sample": "",
        "writes / sample": "",
        "nJ / sample": "1.5",
        "zeros up %": "25",
        "zeros down %": "",
    }
    assert "Energy, in pJ: the defaults." in report.remarks()
    again = Measurements.from_dict(json.loads(json.dumps(report.as_dict())))
    assert again.rows[1].costs == report.rows[1].costs
    older = report.as_dict()
    del older["rows"][1]["costs"]
    assert Measurements.from_dict(older).rows[1].costs == {}


def test_cells(report):
    """Ratios 2, 3, 1: their median is 2, where the medians' ratio would be 4/3."""
    cells = dict(zip(COLUMNS, report.rows[1].cells(200), strict=True))
    assert cells == {
        "rule": "dp",
        "ms/step": "40",
        "images/s": "2,500",
        "÷ bp": "2.00",
        "quartiles": "1.50-2.50",
        "n": "3",
        "products": "22",
        "GFLOP": "1",
        "÷ bp/GFLOP": "2.00",
        "ceil. %": "12",
        "peak MB": "6.00",
    }


def test_remarks(report):
    assert report.remarks() == [
        "Rows of fewer than 10 pairs (the fewest: 1) say little.",
        "mlp, float32: dp takes 0.50 of convert's time",
        "mlp, float32: peak memory of dp is 0.75 of bp's",
        "mlp, float32: dp-fused peaks 4.50 MB below dp; gradients are 4.00 MB",
    ]
    enough = Measurements(ENVIRONMENT, {}, CEILINGS, [row("bp", [0.1] * 10, [0.1] * 10)])
    assert enough.remarks() == []


def test_a_compiled_bp_that_is_faster_is_said(report):
    report.rows.append(row("bp compiled", [0.09], [0.1]))
    assert "mlp, float32: bp compiled takes 0.90 of bp's time and is the one to beat" in report.remarks()


def test_json_there_and_back(report):
    values = json.loads(json.dumps(report.as_dict()))
    assert Measurements.from_dict(values) == report
    dp = values["rows"][1]
    assert (dp["n"], dp["ratio"]) == (3, {"low": 1.5, "median": 2.0, "high": 2.5})
    assert dp["images_per_second"] == pytest.approx(2500)
    assert dp["fraction_of_ceiling"] == pytest.approx(1 / 0.04 / 200)
    assert values["ceilings"][0]["rate"] == pytest.approx(100)
    assert values["environment"] == ENVIRONMENT


def test_markdown_and_terminal_say_the_same(report, capsys):
    text = report.markdown()
    report.print()
    shown = capsys.readouterr().out
    for words in (text, " ".join(shown.split())):
        assert "A processor, 2 cores, 2 threads" in words
        assert "commit 0123456789 with changes, 2030-01-02" in words
        assert "mlp, batch 100, bf16" in words
        assert "1.50-2.50" in words
        assert "200 GFLOP/s" in words
    assert text.count("| bp |") == 2


def test_tables_fit_a_terminal_whatever_they_hold(report, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    report.rows.append(
        row("ep-centred compiled", [109.4567] * 10, [0.1] * 10, peak=1_234_567_890, operations=10**13)
    )
    report.print()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if line.startswith("compiled")]
    assert line.split()[1:] == ["109457", "1", "1095", "1095-1095", "10", "22", "10000", "0.11", "46", "1235"]


def test_kept_numbers_are_rendered_again(report, tmp_path):
    numbers, table, chart = tmp_path / "bench.json", tmp_path / "table.md", tmp_path / "bench.png"
    numbers.write_text(json.dumps(report.as_dict()))
    assert render(numbers, table, chart) == report
    assert table.read_text() == report.markdown()
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert render(numbers) == report


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"environment": {}}'])
def test_files_that_hold_no_bench_are_refused(tmp_path, text):
    path = tmp_path / "bench.json"
    path.write_text(text)
    with pytest.raises(dp.DualpropError, match=r"bench\.json: "):
        render(path)


@pytest.mark.parametrize(("ending", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_chart_is_a_picture(report, tmp_path, ending, begins):
    path = tmp_path / f"chart.{ending}"
    draw(report, path)
    assert path.read_bytes().startswith(begins)


def test_many_measurements_are_read_again(report, tmp_path):
    """More than the 64 KiB that a file of settings may hold."""
    numbers = {**report.as_dict(), "left_out": ["why"] * 20_000}
    (tmp_path / "bench.json").write_text(json.dumps(numbers))
    assert len(Measurements.read(tmp_path / "bench.json").left_out) == 20_000
