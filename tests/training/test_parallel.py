"""Two processes under torchrun train the net that one trains; what each of them sends, by a slow obvious twin."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dualprop import resume, train
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings
from dualprop.training.experiment import device
from dualprop.training.processes import group
from dualprop.training.processes.group import Alone, Group

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
pytestmark = pytest.mark.xdist_group("torchrun")  # one start of it for all

COMMON = Settings(
    hidden=(24, 16), epochs=1, batch_size=76, optimizer="sgd", lr=0.05, weight_decay=1e-3, log_every=5
)
"""The last batch has a single sample: one process has none of it."""

CASES = {
    "bp": {"rule": "bp", "loss": "cross_entropy", "label_smoothing": 0.1},
    "dp": {"rule": "dp", "augment": True, "standardise": True, "epochs": 2},
    "kp-dp": {"rule": "kp-dp", "clip_norm": 0.5},
    "l-dp": {"rule": "l-dp", "batch_size": 75},
    "ms-dp": {"rule": "ms-dp", "lr": 0.02},
    "r-dp": {"rule": "r-dp"},
    "fused": {"rule": "kp-dp", "fused_update": True, "ema": 0.9},
}


def environment():
    own = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**own, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes leave, in one start of torchrun, which takes half a minute."""
    folder = tmp_path_factory.mktemp("together")
    cases = {name: replace(COMMON, **case).as_dict() for name, case in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    worker = Path(__file__).with_name("parallel_worker.py")
    answer = subprocess.run(
        [*TORCHRUN, str(worker), str(folder)], capture_output=True, text=True, timeout=300, env=environment()
    )
    assert answer.returncode == 0, answer.stderr[-4000:]
    return folder


def outcomes(folder):
    return [json.loads((folder / f"outcomes-{rank}.json").read_text()) for rank in (0, 1)]


def records(path, *left_out):
    left_out = ("seconds", "images_per_second", *left_out)
    return [{k: v for k, v in record.items() if k not in left_out} for record in Run.open(path).metrics()]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_what_one_does(name, folder, tmp_path):
    result = train(replace(COMMON, **CASES[name]), tmp_path / "alone")
    assert [own[name] for own in outcomes(folder)] == [["trained", result.test_accuracy]] * 2
    together, alone = Run.open(folder / name).load(), Run.open(tmp_path / "alone").load()
    assert together["counters"]["step"] == alone["counters"]["step"]
    for key, value in alone["net"].items():
        torch.testing.assert_close(together["net"][key], value, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(records(folder / name), records(tmp_path / "alone"), strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["kind"] == theirs["kind"]
        for key in ours.keys() - {"kind"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_both_have_the_same_weights_to_the_bit(name, folder):
    theirs = torch.load(folder / f"{name}.of-process-1.pt", weights_only=True)
    for key, value in Run.open(folder / name).load()["net"].items():
        assert torch.equal(value, theirs[key])


@pytest.mark.slow
def test_one_process_writes(folder, tmp_path):
    train(replace(COMMON, **CASES["dp"]), tmp_path / "alone")
    names = [sorted(p.name.split(".")[0] for p in path.iterdir()) for path in (folder / "dp", tmp_path / "alone")]
    assert names[0] == names[1]
    assert len(records(folder / "dp")) == len(records(tmp_path / "alone"))


@pytest.mark.slow
def test_a_lazy_rule_s_states_are_kept_for_every_process(folder):
    states = Run.open(folder / "l-dp").load()["rule"]
    assert [len(state["means"][0]) for state in states] == [38, 37]
    assert not torch.equal(states[0]["means"][0][:37], states[1]["means"][0])


@pytest.mark.slow
def test_one_process_asked_to_stop_stops_both_and_they_resume_to_the_same_bits(folder):
    for own in outcomes(folder):
        assert own["stopped"][0] == "Interrupted"
        assert own["resumed"] == own["l-dp"]
    assert len({own["stopped"][1] for own in outcomes(folder)}) == 1
    straight, resumed = Run.open(folder / "l-dp").load(), Run.open(folder / "stopped").load()
    assert all(torch.equal(resumed["net"][key], value) for key, value in straight["net"].items())
    assert records(folder / "stopped") == records(folder / "l-dp")


@pytest.mark.slow
def test_errors_reach_both(folder):
    for own in outcomes(folder):
        assert own["wild"][0] == "DivergenceError"
        assert own["taken"][0] == "CheckpointError"
        assert "bp: exists" in own["taken"][1]
        assert own["unknown"][0] == "UnknownNameError"
        assert own["few"] == ["DualpropError", "batch_size=1: must be at least 1 for each of the 2 processes"]
    assert not (folder / "unknown").exists()


@pytest.mark.slow
def test_another_number_of_processes_cannot_go_on(folder):
    (folder / "l-dp" / "result.json").rename(folder / "l-dp" / "kept.json")
    try:
        with pytest.raises(CheckpointError, match="made by 2 processes, and here are 1") as caught:
            resume(folder / "l-dp")
    finally:
        (folder / "l-dp" / "kept.json").rename(folder / "l-dp" / "result.json")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path):
    """Ctrl-C stops both after a checkpoint; one of them speaks."""
    options = ["--hidden", "24", "--epochs", "100000", "--batch-size", "100", "--out", "run"]
    process = subprocess.Popen(
        [*TORCHRUN, "-m", "dualprop", "train", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    deadline = time.monotonic() + 90
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=90)
    assert out == ""
    checkpoint = Run.open(tmp_path / "run").load()
    said = [line for line in errors.splitlines() if line.startswith("dualprop")]
    assert said == [
        f"dualprop: stopped after step {checkpoint['counters']['step']}; go on with: dualprop train --resume run"
    ]
    assert errors.count("epoch 1/100000") == 1


# The pieces, without torchrun


@pytest.fixture
def crowd(monkeypatch):
    """Three processes in one: what each of them sends is kept, and a sum or gather is over what was kept."""

    def make(rank):
        one = Group.__new__(Group)
        one.rank, one.count, one._share = rank, 3, 0.0
        return one

    return [make(rank) for rank in range(3)]


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 9])
def test_parts_are_cut_and_outputs_put_back(samples, crowd, monkeypatch):
    x = torch.randn(samples, 2, 4, 4).to(memory_format=torch.channels_last)
    y = torch.arange(samples)
    parts = [one.shard(x, y) for one in crowd]
    for rank, (own_x, own_y) in enumerate(parts):
        rows = list(range(samples))[rank::3] or [0]
        assert own_y.tolist() == rows
        assert torch.equal(own_x, x[rows])
        assert own_x.is_contiguous(memory_format=torch.channels_last)
        assert crowd[rank]._share == pytest.approx(len(range(samples)[rank::3]) / samples)
    outputs = [own_x.flatten(1) for own_x, _ in parts]
    sent = []
    monkeypatch.setattr(group.dist, "all_gather", lambda parts, padded: sent.append(padded))
    for one, output in zip(crowd, outputs, strict=True):
        one.gather(output, samples)

    def all_gather(parts, padded):
        for part, known in zip(parts, sent, strict=True):
            part.copy_(known)

    monkeypatch.setattr(group.dist, "all_gather", all_gather)
    for one, output in zip(crowd, outputs, strict=True):
        assert torch.equal(one.gather(output, samples), x.flatten(1))


def test_gradients_travel_in_buckets_of_one_type(monkeypatch):
    monkeypatch.setattr(group, "BUCKET", 10)
    tensors = [torch.zeros(n) for n in (4, 6, 1, 25, 3)] + [torch.zeros(2, dtype=torch.float64), torch.zeros(2)]
    buckets = list(group._buckets(tensors))
    assert [[t.numel() for t in bucket] for bucket in buckets] == [[4, 6], [1], [25], [3], [2], [2]]
    assert [t.dtype for t in buckets[4]] == [torch.float64]


def test_alone_nothing_is_changed():
    x, y = torch.randn(3, 2), torch.arange(3)
    alone = Alone()
    assert alone.shard(x, y) == (x, y)
    assert alone.gather(x, 3) is x
    assert alone.mean(0.5) == 0.5
    assert alone.any(True, False) == (True, False)
    assert alone.gathered("x") == ["x"]
    assert alone.on_leader(lambda: 3) == 3
    assert alone.leads


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    tried = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device: (tried.append(str(device)), zeros(*size))[1])
    device("cuda")
    device("cpu")
    assert tried == ["cuda:1", "cpu"]


def test_compare_is_for_one_process(monkeypatch, tmp_path):
    from dualprop.studies.comparison import compare

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DualpropError, match="compare: trains in one process"):
        compare(["bp"], [0], {}, tmp_path / "c")
