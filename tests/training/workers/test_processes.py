"""Workers in processes of their own: they learn, are killed and come back, go on, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import dualprop as dp
from dualprop.runs.folder import Run

pytest.importorskip("zmq")

SETTINGS = {
    "data": "digits", "hidden": (32, 32), "epochs": 6, "batch_size": 20, "lr": 0.003, "loss": "cross_entropy",
    "alignment": False,
}  # fmt: skip


def left():
    """Processes of workers that this one has started."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if p.is_running() and "dualprop.cli.worker" in " ".join(p.cmdline())]


def folders():
    return set(Path(os.environ.get("TMPDIR", "/tmp")).glob("dualprop-*"))


class Kill(dp.Callback):
    """Kills workers at certain steps."""

    def __init__(self, *kills):
        self.kills, self.recoveries = list(kills), []

    def step(self, trainer):
        if self.kills and trainer.step >= self.kills[0][0]:
            os.kill(trainer.crew.pid(self.kills.pop(0)[1]), signal.SIGKILL)
        self.recoveries = list(trainer.crew.recoveries)


@pytest.mark.slow
def test_they_learn_and_are_killed_and_learn_on(tmp_path):
    """The first, a middle and the last one are killed; each comes back with its snapshot."""
    before, kill = folders(), Kill((100, 1), (160, 0), (220, 2))
    settings = dp.Settings(**{**SETTINGS, "epochs": 12})
    carrier = dp.distributed.ZeroMQ(snapshot_every=0.2)
    result = dp.distributed.train(
        settings, tmp_path / "run", workers=3, carrier=carrier, callbacks=[kill], progress=False
    )
    assert result.test_accuracy > 0.85
    assert [number for number, _, _ in kill.recoveries] == [1, 0, 2]
    assert left() == []
    assert folders() == before
    epochs = Run.open(tmp_path / "run").metrics("epoch")
    assert epochs[-1]["measures"]["updates"] > 1500
    again = dp.distributed.resume(tmp_path / "run", {"epochs": 13}, workers=2, progress=False)
    assert again.test_accuracy > 0.85
    assert len(Run.open(tmp_path / "run").metrics("epoch")) == 13


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A run by the command line, in a process of its own, that has begun to learn."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = [f"--{name.replace('_', '-')}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
             for name, v in SETTINGS.items() if name not in ("epochs", "alignment")]  # fmt: skip
    command = [sys.executable, "-m", "dualprop", "train", "--workers=2", "--epochs=500", f"--run={folder}", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        if (folder / "metrics.jsonl").exists() and "epoch" in (folder / "metrics.jsonl").read_text():
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    else:
        raise AssertionError("does not begin")
    return folder, process


def of(process):
    return [p for p in psutil.Process(process.pid).children(recursive=True) if "worker" in " ".join(p.cmdline())]


@pytest.mark.slow
def test_ctrl_c_saves_and_leaves_nothing_behind(started):
    folder, process = started
    children = of(process)
    assert len(children) == 3  # and one that waits
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert f"go on with: dualprop train --resume {folder}" in said
    assert "worker 1: layer" in said
    assert not [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    state = Run.open(folder).load()["workers"]
    assert state["batch"] > 0
    assert all((folder / file).is_file() for file in state["files"].values())


@pytest.mark.slow
def test_where_the_driver_is_killed_the_workers_end_and_the_run_goes_on(started):
    folder, process = started
    assert process.poll() is not None, "the test before has stopped it"
    before, epochs = Run.open(folder).load()["counters"]["step"], len(Run.open(folder).metrics("epoch"))
    command = [sys.executable, "-m", "dualprop", "train", f"--resume={folder}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for _ in range(3000):
        children = of(process)
        if len(children) == 3 and len(Run.open(folder).metrics("epoch")) > epochs + 1:
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while time.monotonic() < until and (
        alive := [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    ):
        time.sleep(0.05)
    assert alive == []
    said = json.loads((folder / "resolved.json").read_text())["workers"]
    assert said["way"] == "in-flight:4"
    assert Run.open(folder).load()["counters"]["step"] > before
