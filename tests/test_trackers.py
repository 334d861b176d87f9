"""A run's numbers in W&B and MLflow: what their own files say is what metrics.jsonl says."""

from __future__ import annotations

import json
import time

import pytest

import dualprop as dp
from dualprop.runs.recorder import scalars


def records(run, kind):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("kind", "epoch", "step")}
        for line in lines
        if line["kind"] == kind
    ]


def trained(folder, callback):
    settings = dp.Settings(hidden=(12,), epochs=2)
    dp.train(settings, folder / "run", callbacks=[callback], progress=False)
    return folder / "run"


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    from dualprop.mlflow import MlflowCallback

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'tracked'}")
    run = trained(tmp_path, MlflowCallback({"lr": 0.1}, run_name="mine"))
    (found,) = mlflow.MlflowClient().search_runs(["0"])
    assert (found.data.params, found.info.run_name, found.info.status) == ({"lr": "0.1"}, "mine", "FINISHED")
    for name, number in scalars("epoch", records(run, "epoch")[-1]).items():
        assert found.data.metrics[name] == number
    losses = mlflow.MlflowClient().get_metric_history(found.info.run_id, "epoch/loss")
    assert [metric.value for metric in losses] == [record["loss"] for record in records(run, "epoch")]
    assert found.data.metrics["test/accuracy"] == records(run, "test")[0]["accuracy"]


def test_a_run_that_is_stopped_is_no_finished_one(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    from dualprop.mlflow import MlflowCallback

    class Stopping(dp.Callback):
        def epoch(self, trainer):
            raise dp.Interrupted("stopped")

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'tracked'}")
    settings = dp.Settings(hidden=(12,), epochs=2)
    with pytest.raises(dp.Interrupted):
        dp.train(settings, tmp_path / "run", callbacks=[MlflowCallback(), Stopping()], progress=False)
    (found,) = mlflow.MlflowClient().search_runs(["0"])
    assert found.info.status == "FAILED"


class Wandb:
    """What `wandb.init` gives, as far as it is used."""

    def __init__(self):
        self.logged, self.options, self.ended = [], None, False

    def init(self, **options):
        self.options = options
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended = True

    def log(self, numbers, step):
        self.logged.append((step, numbers))


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    import dualprop.wandb

    fake = Wandb()
    monkeypatch.setattr(dualprop.wandb, "wandb", fake)
    run = trained(tmp_path, dualprop.wandb.WandbCallback(project="digits", config={"lr": 0.1}))
    assert fake.options == {"project": "digits", "config": {"lr": 0.1}}
    assert fake.ended
    expected = [scalars("epoch", record) for record in records(run, "epoch")] + [
        scalars("test", records(run, "test")[0])
    ]
    assert [{k: v for k, v in numbers.items() if k != "epoch"} for _, numbers in fake.logged] == expected
    assert [numbers["epoch"] for _, numbers in fake.logged] == [1, 2, 2]


@pytest.mark.slow
def test_wandb_itself_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from dualprop.wandb import WandbCallback

    monkeypatch.setenv("WANDB_SILENT", "true")
    trained(tmp_path, WandbCallback(project="digits", mode="offline", dir=str(tmp_path)))
    (kept,) = (tmp_path / "wandb").glob("offline-run-*")
    (file,) = kept.glob("*.wandb")
    deadline = time.monotonic() + 30  # its own process writes it
    while b"epoch/loss" not in file.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
