"""A rule whose inference diverges: one line with the step, the epoch and the last good checkpoint."""

import sys
from dataclasses import replace

import pytest
import torch

import dualprop as dp
from dualprop import train
from dualprop.errors import DivergenceError, DualpropError
from dualprop.runs.folder import Run
from dualprop.studies.comparison import compare, resume_comparison

WHY = "the free phase diverged at step 17, layer 2: a state moved by 9"


class Failing(dp.Backprop):
    """Back-propagation until a call of one of its methods, from when on that one diverges."""

    fails, after, calls = "backward", 0, 0

    def _called(self, name):
        if name == self.fails:
            type(self).calls += 1
            if self.calls > self.after:
                raise DivergenceError(WHY)

    def updates(self, x, y):
        self._called("backward")
        yield from super().updates(x, y)

    def predict(self, x):
        self._called("predict")
        return super().predict(x)

    def infer(self, x, y):
        self._called("infer")
        return super().infer(x, y)

    def gradients(self, x, y):
        self._called("gradients")
        return super().gradients(x, y)


@pytest.fixture
def failing(monkeypatch):
    """Register a rule that diverges at a call of a method."""

    def register(fails, after):
        rule = type("Failing", (Failing,), {"fails": fails, "after": after, "calls": 0})
        monkeypatch.setitem(dp.RULES, "failing", dp.Method(rule, "fails"))

    return register


BATCHES = 13  # of `quick` in an epoch


@pytest.mark.parametrize(
    ("fails", "after", "step", "epoch", "good"),
    [
        ("backward", 0, 1, 1, 0),
        ("backward", BATCHES + 3, BATCHES + 4, 2, BATCHES),
        ("predict", 1, 2 * BATCHES, 2, BATCHES),  # at the second validation
        ("predict", 2, 2 * BATCHES, 2, 2 * BATCHES),  # at the test
        ("gradients", 1, 2 * BATCHES, 2, BATCHES),  # at the second alignment
    ],
)
def test_the_line_says_where_and_the_checkpoint_is_good(fails, after, step, epoch, good, failing, quick, tmp_path):
    failing(fails, after)
    with pytest.raises(DivergenceError) as caught:
        train(replace(quick, rule="failing", alignment=fails == "gradients"), tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.safetensors"
    assert str(caught.value) == (
        f"at step {step} (epoch {epoch}) {WHY}; the last good checkpoint is {path}, of step {good}"
    )
    run = Run.open(tmp_path / "run")
    assert run.load()["counters"]["step"] == good
    assert all(bool(torch.isfinite(weight).all()) for weight in run.load()["net"].values())
    assert run.result is None
    assert max([0, *(r["step"] for r in run.metrics() if r["kind"] == "epoch")]) == good
    assert not any(p.name.endswith(".tmp") for p in run.path.iterdir())


def test_a_nan_whose_search_diverges_is_still_one_line(failing, quick, tmp_path):
    failing("infer", 0)
    wild = replace(quick, rule="failing", optimizer="sgd", momentum=0.0, lr=1e25, epochs=50)
    with pytest.raises(DivergenceError, match=r"^at step \d+ \(epoch \d+\) .* became .*; the last good") as caught:
        train(wild, tmp_path / "run")
    assert WHY in str(caught.value) or "(weight)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_other_runs_of_a_comparison_go_on(failing, tmp_path, caplog):
    failing("backward", BATCHES)
    common = {"hidden": [8], "epochs": 2, "alignment": False}
    report = compare(["bp", "failing", "dp"], [0], common, tmp_path / "c")
    assert [record.settings.rule for record in report.records] == ["bp", "dp"]
    assert list(report.diverged) == ["failing-seed0"]
    (line,) = (line for line in report.markdown().splitlines() if "diverged" in line)
    assert line.startswith(f"- failing-seed0 diverged: at step {BATCHES + 1} (epoch 2) {WHY}; the last good")
    assert (tmp_path / "c" / "table.md").read_text() == report.markdown()
    assert "failing-seed0 diverged" in caplog.text
    before = (tmp_path / "c" / "bp-seed0" / "checkpoint.safetensors").stat().st_mtime_ns
    assert list(resume_comparison(tmp_path / "c").diverged) == ["failing-seed0"]
    assert (tmp_path / "c" / "bp-seed0" / "checkpoint.safetensors").stat().st_mtime_ns == before


def test_a_comparison_in_which_every_run_diverges(failing, tmp_path):
    failing("backward", 0)
    with pytest.raises(DivergenceError, match=r"^failing-seed0 diverged: at step 1 .*; failing-seed1 diverged"):
        compare(["failing"], [0, 1], {"hidden": [8], "epochs": 1}, tmp_path / "c")
    assert not (tmp_path / "c" / "table.md").exists()


@pytest.mark.parametrize("command", ["train", "compare"])
def test_the_command_line_says_it_in_one_line(command, failing, monkeypatch, capsys, tmp_path):
    from dualprop import cli

    failing("backward", 3)
    monkeypatch.chdir(tmp_path)
    own = ["--rule", "failing", "--run", "r"] if command == "train" else ["--rules", "bp,failing", "--out", "r"]
    options = ["--hidden", "8", "--epochs", "1", "--seeds", "0"][: 4 if command == "train" else 6]
    monkeypatch.setattr(sys, "argv", ["dualprop", command, *own, *options])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    out, err = capsys.readouterr()
    assert exit.value.code == 2
    last = err.splitlines()[-1]
    assert last.startswith("dualprop: error: ")
    assert ("r: failing-seed0 diverged" if command == "compare" else WHY) in last
    assert ("| bp" in (tmp_path / "r" / "table.md").read_text()) if command == "compare" else out == ""


def test_divergence_is_an_error_of_the_library():
    assert issubclass(DivergenceError, DualpropError)
