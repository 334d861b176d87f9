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
    """Each is killed once, and comes back with its snapshot."""
    kill = Kill((100, 1), (200, 0))
    settings = dp.Settings(**{**SETTINGS, "epochs": 12})  # so that it has not ended before the last one is back
    carrier = dp.distributed.ZeroMQ(snapshot_every=0.2)
    result = dp.distributed.train(
        settings, tmp_path / "run", workers=2, carrier=carrier, callbacks=[kill], progress=False
    )
    assert result.test_accuracy > 0.85
    assert [number for number, _, _ in kill.recoveries] == [1, 0]
    assert ours(psutil.Process()) == []
    assert left(sockets) == []
    epochs = Run.open(tmp_path / "run").metrics("epoch")
    assert len(epochs) == 12
    assert epochs[-1]["measures"]["updates"] > 400


def epochs_of(folder):
    path = folder / "metrics.jsonl"
    return (
        [r for r in map(json.loads, path.read_text().splitlines()) if r["kind"] == "epoch"]
        if path.exists()
        else []
    )


@contextmanager
def command(folder, count, *words):
    """`dualprop train` by some workers, in processes of their own, once they have learnt for two epochs."""
    before = len(epochs_of(folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "dualprop", "train", f"--workers={count}", "--epochs=500", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait(lambda: len(epochs_of(folder)) > before + 1, process=process)
        workers = ours(psutil.Process(process.pid))
        assert len(workers) == count + 1, "one waits"
        assert len(left(Path(tempfile.gettempdir()))) == 1
        yield process, workers
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_run_goes_on_after_its_driver_was_killed_and_leaves_nothing_behind_when_it_is_asked_to_end(
    tmp_path, sockets
):
    """By another number of workers; also where everybody is asked at once: it is the driver who says when."""
    folder = tmp_path / "run"
    words = [f"--{name.replace('_', '-')}={','.join(map(str, v)) if isinstance(v, tuple) else v}"
             for name, v in SETTINGS.items() if name not in ("epochs", "alignment")]  # fmt: skip
    with command(folder, 1, f"--run={folder}", *words) as (process, workers):
        process.kill()
        process.wait()
        wait(lambda: not alive(workers), 60)
        assert left(sockets) == []
    step = Run.open(folder).load()["counters"]["step"]
    assert json.loads((folder / "resolved.json").read_text())["workers"]["way"] == "in-flight:4"
    with command(folder, 2, f"--resume={folder}") as (process, workers):
        for worker in workers:
            worker.send_signal(signal.SIGINT)
            worker.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert f"go on with: dualprop train --resume {folder}" in said
    assert "worker 1: layer" in said
    assert "started again" not in said
    assert alive(workers) == []
    assert left(sockets) == []
    state = Run.open(folder).load()
    assert state["counters"]["step"] > step
    assert all((folder / file).is_file() for file in state["workers"]["files"].values())
