"""The run folder: complete or absent, and what it refuses to read."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch

from dualprop import load_net, resume, train
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.folder import Run


class Malicious:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def test_a_run_folder_holds_what_the_readme_says(quick, tmp_path):
    result = train(quick, tmp_path / "run")
    names = {p.name.split(".")[0] for p in (tmp_path / "run").iterdir() if p.name != ".lock"}
    written = {
        "settings",
        "resolved",
        "environment",
        "metrics",
        "events",
        "checkpoint",
        "best",
        "pictures",
        "result",
    }
    assert names == written
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert {"python", "versions", "processor", "threads", "accelerator", "git_commit"} <= set(environment)
    assert environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert Run.open(tmp_path / "run").settings == quick
    assert json.loads((tmp_path / "run" / "result.json").read_text())["test_accuracy"] == result.test_accuracy


def test_the_saved_weights_are_those_that_were_tested(quick, tmp_path):
    from dualprop import data

    result = train(quick, tmp_path / "run")
    net = load_net(tmp_path / "run")
    test = data.load("digits").test
    images, labels = test.batch(torch.arange(len(test)))
    with torch.no_grad():
        predicted = net(images / 255).argmax(1)
    assert float((predicted == labels).double().mean()) == pytest.approx(result.test_accuracy)


def test_an_existing_folder_is_refused_and_left_alone(quick, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine")
    with pytest.raises(CheckpointError, match="exists"):
        train(quick, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["precious"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rule": "dpp"}, "dpp"),
        ({"data": "mnits"}, "mnist"),
        ({"net": "mpl"}, "mlp"),
        ({"optimizer": "adm"}, "adam"),
        ({"loss": "msee"}, "mse"),
        ({"precision": "f16"}, "precision"),
        ({"lr_schedule": "cosin"}, "cosine"),
        ({"activation": "rleu"}, "relu"),
        ({"device": "tpu0"}, "device"),
        ({"rule_settings": {"alpha": 2}}, "alpha"),
        ({"rule_settings": {"beta": [1, 1]}}, "beta"),
        ({"rule_settings": {"gamma": 1}}, "gamma"),
        ({"rule": "bp", "rule_settings": {"alpha": 0.5}}, "alpha"),
    ],
)
def test_wrong_settings_leave_no_folder(quick, tmp_path, change, named):
    with pytest.raises(DualpropError, match=named) as caught:
        train(replace(quick, **change), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"val_fraction": 1.0},
        {"hidden": (10, 0)},
        {"warmup_epochs": 3.0},
        {"seed": -1},
    ],
)
def test_numbers_out_of_range_are_named(quick, change):
    with pytest.raises(DualpropError, match=next(iter(change))):
        replace(quick, **change)


def unfinished(quick, path):
    """A run folder as a kill right after its start leaves it."""
    from dualprop.training.experiment import build

    experiment = build(quick)
    return Run.create(path, quick, experiment.resolved.as_dict(), experiment.trainer.state_dict())


def test_a_pickle_in_disguise_is_refused_and_not_run(quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = unfinished(quick, tmp_path / "run")
    (run.path / "checkpoint.safetensors").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors"):
        resume(run.path)
    torch.save({"format": 1, "net": Malicious()}, run.path / "checkpoint.safetensors")
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: damaged"):
        resume(run.path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "zip", "missing", "other"])
def test_a_damaged_checkpoint_is_named(quick, tmp_path, damage):
    run = unfinished(quick, tmp_path / "run")
    path = run.path / "checkpoint.safetensors"
    whole = path.read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("hello", "there")
    other = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, other)
    content = {
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "garbage": b"\x00garbage" * 100,
        "zip": archive.getvalue(),
        "other": other.getvalue(),
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[damage])
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors") as caught:
        resume(run.path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_net_is_refused(quick, tmp_path):
    run = unfinished(quick, tmp_path / "run")
    other = unfinished(replace(quick, hidden=(10,)), tmp_path / "other")
    (run.path / "checkpoint.safetensors").write_bytes((other.path / "checkpoint.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="not a checkpoint of this run") as caught:
        resume(run.path)
    assert "\n" not in str(caught.value)


def test_contradicting_options_are_refused(quick, tmp_path):
    run = unfinished(quick, tmp_path / "run")
    with pytest.raises(DualpropError, match=r"lr=0\.5: contradicts"):
        resume(run.path, {"lr": 0.5})
    with pytest.raises(DualpropError, match="learning: Settings has no such argument"):
        resume(run.path, {"learning": 0.5})
    assert resume(run.path, {"lr": quick.lr, "checkpoint_every": 5.0}).best_epoch in (1, 2)


def test_no_run_folder(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        resume(tmp_path)


def test_a_net_is_loaded_without_its_data(quick, tmp_path, monkeypatch):
    from dualprop import data

    train(quick, tmp_path / "run")
    monkeypatch.setattr(data, "load", lambda *_: pytest.fail("the data set was asked for"))
    net = load_net(tmp_path / "run")
    assert [tuple(p.shape) for p in net.parameters() if p.ndim == 2] == [(24, 64), (16, 24), (10, 16)]


def test_weights_without_their_net_s_shape_are_refused(quick, tmp_path):
    train(quick, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (run.path / "resolved.json").unlink()  # which says as much, for the same weights in another folder
    weights, _ = run.load_weights("best.safetensors")
    for notes in ({}, {"in_shape": "[64", "num_classes": 10}, {"in_shape": [65], "num_classes": 10}):
        run.save_weights("best.safetensors", weights, **notes)
        with pytest.raises(CheckpointError, match="weights of another net") as caught:
            load_net(run.path)
        assert "\n" not in str(caught.value)


def edited(checkpoint, place, value):
    """The checkpoint with another value somewhere, as `counters.epoch`."""
    *path, last = place.split(".")
    inner = checkpoint
    for name in path:
        inner = inner[name]
    inner[last] = value
    return {k: v for k, v in checkpoint.items() if k != "format"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("counters.epoch", "a"),
        ("counters.step", None),
        ("counters", 3),
        ("best.weights", {}),
        ("best.weights", {"layers.0.synapse.weight": 3}),
        ("best.numbers", {"accuracy": "high"}),
        ("meter.told.samples", "many"),
        ("meter.untold", {}),
        ("meter.untold.metrics", {"accuracy": {"tp": 3}}),
        ("rule", []),
        ("rule", None),
        ("rng", None),
        ("optimizer", {}),
        ("net", {}),
    ],
)
def test_a_checkpoint_edited_by_hand_is_refused(place, value, quick, tmp_path):
    train(quick, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    (run.path / "result.json").unlink()
    run.save(edited(run.load(), place, value))
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors: not a checkpoint of this run") as caught:
        resume(run.path)
    assert "\n" not in str(caught.value)


def test_one_process_at_a_time_trains_a_run(quick, tmp_path):
    run = unfinished(quick, tmp_path / "run")
    run.claim()
    with pytest.raises(CheckpointError, match="run: another process is training this run"):
        resume(run.path)
    run.release()
    assert resume(run.path).best_epoch in (1, 2)


@pytest.mark.slow
def test_a_lock_does_not_outlive_kill_9(quick, tmp_path):
    run = unfinished(quick, tmp_path / "run")
    code = "import sys, time; from pathlib import Path; from dualprop.runs.folder import Run; "
    code += "run = Run(Path(sys.argv[1])); run.claim(); print('claimed', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, run.path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "claimed\n"
    with pytest.raises(CheckpointError, match="another process"):
        run.claim()
    process.kill()
    process.communicate()
    run.claim()


def test_a_validation_part_of_everything_is_named(quick, tmp_path):
    with pytest.raises(DualpropError, match=r"val_fraction=0\.9999: .*leaves none to train on"):
        train(replace(quick, val_fraction=0.9999), tmp_path / "run")


def test_damaged_weights_are_named(quick, tmp_path):
    train(quick, tmp_path / "run")
    path = tmp_path / "run" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        load_net(tmp_path / "run")


def test_metrics_beyond_the_checkpoint_are_dropped(quick, tmp_path):
    run = unfinished(quick, tmp_path / "run")
    for step in (1, 2, 3):
        run.log(kind="train", step=step)
    with (run.path / "metrics.jsonl").open("a") as f:
        f.write('{"kind": "tra')  # a kill in the middle of a line
    run.rewind_metrics(2)
    assert [record["step"] for record in run.metrics()] == [1, 2]


def test_a_folder_that_another_process_made_meanwhile(quick, tmp_path, monkeypatch):
    from dualprop.runs import folder

    unfinished(quick, tmp_path / "run")
    checks = iter([lambda path: None, folder.check_free])
    monkeypatch.setattr(folder, "check_free", lambda path: next(checks)(path))
    with pytest.raises(CheckpointError, match="exists"):
        unfinished(quick, tmp_path / "run")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_made(quick, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be made") as caught:
        unfinished(quick, tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)
