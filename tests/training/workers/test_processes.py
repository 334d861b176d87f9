"""Workers in processes of their own: they learn, are killed and come back, go on, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
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


@pytest.fixture
def sockets(monkeypatch):
    """Where this test's sockets are, and nobody else's; a short name, for those of sockets are short."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def left(sockets):
    return list(sockets.glob("dualprop-*"))


def ours(process):
    """The workers' processes that a process has started."""
    children = process.children(recursive=True)
    return [p for p in children if p.is_running() and "dualprop.cli.worker" in " ".join(p.cmdline())]


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait(for_what, seconds=300, process=None):
    """Until it holds."""
    until = time.monotonic() + seconds
    while not for_what():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


class Kill(dp.Callback):
    """Kills workers at certain steps."""

    def __init__(self, *kills):
        self.kills, self.recoveries = list(kills), []

    def step(self, trainer):
        if self.kills and trainer.step >= self.kills[0][0]:
            os.kill(trainer.crew.pid(self.kills.pop(0)[1]), signal.SIGKILL)
        self.recoveries = list(trainer.crew.recoveries)


@pytest.mark.slow
def test_they_learn_and_are_killed_and_learn_on(tmp_path, sockets):
    """The first, a middle and the last one are killed; each comes back with its snapshot."""
    kill = Kill((100, 1), (160, 0), (220, 2))
    settings = dp.Settings(**{**SETTINGS, "epochs": 12})
    carrier = dp.distributed.ZeroMQ(snapshot_every=0.2)
    result = dp.distributed.train(
        settings, tmp_path / "run", workers=3, carrier=carrier, callbacks=[kill], progress=False
    )
    assert result.test_accuracy > 0.85
    assert [number for number, _, _ in kill.recoveries] == [1, 0, 2]
    assert ours(psutil.Process()) == []
    assert left(sockets) == []
    epochs = Run.open(tmp_path / "run").metrics("epoch")
    assert epochs[-1]["measures"]["updates"] > 1500
    again = dp.distributed.resume(tmp_path / "run", {"epochs": 13}, workers=2, progress=False)
    assert again.test_accuracy > 0.85
    assert len(Run.open(tmp_path / "run").metrics("epoch")) == 13


def epochs_of(folder):
    path = folder / "metrics.jsonl"
    return (
        [r for r in map(json.loads, path.read_text().splitlines()) if r["kind"] == "epoch"]
        if path.exists()
        else []
    )


@contextmanager
def begun(folder):
    """A run by the command line, in a process of its own, that has learnt for two epochs."""
    words = [f"--{name.replace('_', '-')}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
             for name, v in SETTINGS.items() if name not in ("epochs", "alignment")]  # fmt: skip
    command = [sys.executable, "-m", "dualprop", "train", "--workers=2", "--epochs=500", f"--run={folder}", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait(lambda: len(epochs_of(folder)) > 1, process=process)
        workers = ours(psutil.Process(process.pid))
        assert len(workers) == 3, "two, and one that waits"
        yield process, workers
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_saves_and_leaves_nothing_behind(asked, tmp_path, sockets):
    """Also where everybody is asked at once: it is the driver who says when."""
    folder = tmp_path / "run"
    with begun(folder) as (process, workers):
        for worker in workers:
            worker.send_signal(asked)
        process.send_signal(asked)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert f"go on with: dualprop train --resume {folder}" in said
    assert "worker 1: layer" in said
    assert "started again" not in said
    assert alive(workers) == []
    assert left(sockets) == []
    state = Run.open(folder).load()["workers"]
    assert state["batch"] > 0
    assert all((folder / file).is_file() for file in state["files"].values())


@pytest.mark.slow
def test_where_the_driver_is_killed_nothing_is_left_and_the_run_goes_on(tmp_path, sockets):
    folder = tmp_path / "run"
    with begun(folder) as (process, workers):
        assert len(left(sockets)) == 1
        process.kill()
        process.wait()
        wait(lambda: not alive(workers), 60)
        assert left(sockets) == []
    step, epochs = Run.open(folder).load()["counters"]["step"], len(epochs_of(folder))
    assert json.loads((folder / "resolved.json").read_text())["workers"]["way"] == "in-flight:4"
    command = [sys.executable, "-m", "dualprop", "train", f"--resume={folder}", f"--epochs={epochs + 2}"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    assert Run.open(folder).load()["counters"]["step"] > step
    assert len(epochs_of(folder)) == epochs + 2
    assert left(sockets) == []
