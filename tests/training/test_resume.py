"""A run that stops, in whatever way, ends with the weights of one that does not."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from dualprop import RULES, Settings, resume, train
from dualprop.errors import CheckpointError, Interrupted
from dualprop.runs.folder import Run
from dualprop.training.interrupt import Interrupt
from tests.slow import but_slow


def outcome(path):
    """The final weights and the metrics without their timings."""
    run = Run.open(path)
    timed = ("seconds", "images_per_second")
    metrics = [{k: v for k, v in record.items() if k not in timed} for record in run.metrics()]
    return run.load()["net"], run.load_weights("best.safetensors")[0], metrics


def assert_same(a, b):
    for weights, others in zip(outcome(a)[:2], outcome(b)[:2], strict=True):
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert outcome(a)[2] == outcome(b)[2]


@pytest.mark.parametrize("rule", but_slow(RULES, *set(RULES) - {"dp", "r-dp", "ms-dp", "l-dp", "ep", "dtp"}))
def test_interrupted_runs_end_with_the_same_weights(rule, quick, tmp_path, monkeypatch):
    settings = replace(quick, rule=rule, augment=True, alignment=True, weight_decay=0.01, optimizer="adamw")
    train(settings, tmp_path / "whole")

    stops = iter([3, 4, 6])  # steps within the epochs after which somebody presses Ctrl-C
    polls = iter(range(10_000))
    due = [next(stops)]

    def asked(self):
        if due and next(polls) == due[0]:
            due[:] = [due[0] + extra for extra in [next(stops, None)] if extra]
            return True
        return False

    monkeypatch.setattr(Interrupt, "asked", property(asked, lambda self, value: None), raising=False)
    stopped = 0
    try:
        train(settings, tmp_path / "stopped")
    except Interrupted:
        stopped += 1
    while Run.open(tmp_path / "stopped").result is None:
        try:
            resume(tmp_path / "stopped")
        except Interrupted:
            stopped += 1
    assert stopped >= 2
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def start(*options):
    """`dualprop train` in a process of its own."""
    command = [sys.executable, "-m", "dualprop", "train", *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_run_killed_at_any_moment_resumes_bit_exactly(tmp_path):
    settings = Settings(rule="l-dp", hidden=(24, 16), epochs=6, batch_size=40, checkpoint_every=0)
    train(settings, tmp_path / "whole")
    options = ("--rule", "l-dp", "--hidden", "24,16", "--epochs", "6", "--batch-size", "40")
    path, kills = tmp_path / "killed", 0
    process = start("--run", path, *options, "--checkpoint-every", "0")
    for delay in (0.0, 0.13):  # past the first checkpoint, then wherever that is
        before = (path / "metrics.jsonl").stat().st_size if (path / "metrics.jsonl").exists() else 0
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            metrics = path / "metrics.jsonl"
            if metrics.exists() and metrics.stat().st_size != before:
                break
            time.sleep(0.005)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        process = start("--resume", path)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert kills >= 1
    assert_same(tmp_path / "whole", path)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "run"
    options = ("--hidden", "24", "--epochs", "500", "--batch-size", "20")
    process = start("--run", path, *options)
    metrics, deadline = path / "metrics.jsonl", time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    last = errors.strip().splitlines()[-1]
    assert f"dualprop train --resume {path}" in last
    assert "Traceback" not in errors
    step = Run.open(path).load()["counters"]["step"]
    assert step > 0
    assert f"step {step}" in last


def test_a_finished_run_answers_at_once(quick, tmp_path):
    first = train(quick, tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}
    assert resume(tmp_path / "run") == first
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").iterdir()}


def test_a_failed_write_leaves_the_old_checkpoint(quick, tmp_path, monkeypatch):
    train(quick, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    step = run.load()["counters"]["step"]

    def no_space(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: cannot be written \(No space"):
        run.save({"counters": {"step": step + 1}})
    assert [path.name for path in run.path.glob(".*")] == [".lock"]
    assert run.load()["counters"]["step"] == step


def test_a_question_reaches_the_outer_context():
    handler = signal.getsignal(signal.SIGINT)
    with Interrupt() as outer:
        with Interrupt() as inner:
            signal.raise_signal(signal.SIGINT)
            assert inner.asked
        assert outer.asked
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_acts_as_usual():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
