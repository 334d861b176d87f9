"""Run folders as no run of ours leaves them, each with what is read and the one line that it ends in."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import dualprop as dp
from dualprop.runs import checkpoint as format
from dualprop.studies.comparison import compare, resume_comparison
from dualprop.studies.report import Report

ESCAPE = "\x1b[2J"
HUGE = "1" + "0" * 400
DEEP = "[" * 60_000

Change = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """What is done to a folder with a run in it, what reads it then, and what is said (a regular expression)."""

    change: Change
    read: Callable[[Path], object]
    said: str


def make(folder: Path) -> None:
    """A finished run `run`, one that stopped before its last test `stopped`, and a comparison `compare`."""
    settings = dp.Settings(rule="l-dp", hidden=(6,), epochs=1, batch_size=500, ema=0.5, log_every=1)
    dp.train(settings, folder / "run", progress=False)
    shutil.copytree(folder / "run", folder / "stopped")
    (folder / "stopped" / "result.json").unlink()
    common = {"hidden": [6], "epochs": 1, "batch_size": 500}
    compare(["bp"], [0], common, folder / "compare")


def resumed(folder: Path) -> object:
    return dp.resume(folder / "stopped", progress=False)


def finished(folder: Path) -> object:
    return dp.resume(folder / "run", progress=False)


def loaded(folder: Path) -> object:
    return dp.load_net(folder / "run")


def reported(folder: Path) -> object:
    return Report.of([folder / "run"]).write(folder)


def compared(folder: Path) -> object:
    return resume_comparison(folder / "compare")


def recipe(folder: Path) -> object:
    return dp.recipes.read(folder / "mine.toml")


def text(name: str, content: str | bytes) -> Change:
    """Another content of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def entry(name: str, place: str, value: Any) -> Change:
    """Another value somewhere in a JSON file; a string that begins with = is put in as it is."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        *path, last = place.split(".")
        inner = values
        for step in path:
            inner = inner[step]
        inner[last] = value
        raw = isinstance(value, str) and value.startswith("=")
        written = json.dumps(values)
        (folder / name).write_text(written.replace(json.dumps(value), value[1:]) if raw else written)

    return change


def line(**record: Any) -> Change:
    """One more line of metrics, before the last."""

    def change(folder: Path) -> None:
        file = folder / "run" / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join([*lines[:-1], json.dumps(record) + "\n", lines[-1]]))

    return change


def state(place: str, value: Any, run: str = "stopped") -> Change:
    """Another value somewhere in a checkpoint; a function is given what is there."""

    def change(folder: Path) -> None:
        file = folder / run / "checkpoint.safetensors"
        values = format.loaded(file)
        *path, last = [int(step) if step.isdigit() else step for step in place.split("/")]
        inner = values
        for step in path:
            inner = inner[step]
        inner[last] = value(inner[last]) if callable(value) else value
        file.write_bytes(format.dumped(values))

    return change


def header(content: str, **words: str) -> Change:
    """A checkpoint of one tensor with such a state in its header."""
    import safetensors.torch

    words = {"format": format.FORMAT, "state": content, **words}
    return text("stopped/checkpoint.safetensors", safetensors.torch.save({"x": torch.zeros(1)}, words))


def special(name: str, kind: str) -> Change:
    """A pipe, a device, a large file or a loop of links in a file's place."""

    def change(folder: Path) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "large":
            with path.open("wb") as file:
                file.truncate(2**41)
        else:
            path.symlink_to({"device": "/dev/zero", "loop": path.name}[kind])

    return change


def swapped(folder: Path) -> None:
    """Another rule's run in the place of one of the comparison's."""
    settings = json.loads((folder / "compare" / "comparison.json").read_text())
    (folder / "compare" / "comparison.json").write_text(json.dumps({**settings, "rules": ["dp"]}))
    (folder / "compare" / "bp-seed0").rename(folder / "compare" / "dp-seed0")


def epoch(*, more: int = 0, **numbers: Any) -> Change:
    """Other numbers in every epoch's record, which is there more often."""

    def change(folder: Path) -> None:
        file = folder / "run" / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        changed = [{**one, **numbers} if one["kind"] == "epoch" else one for one in lines]
        changed += more * [one for one in changed if one["kind"] == "epoch"]
        file.write_text("".join(json.dumps(one) + "\n" for one in changed))

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def former(folder: Path) -> None:
    (folder / "stopped" / "checkpoint.safetensors").unlink()
    (folder / "stopped" / "checkpoint.pt").write_bytes(b"PK")


def others(folder: Path) -> None:
    shutil.copy(folder / "compare" / "bp-seed0" / "checkpoint.safetensors", folder / "stopped")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


W = "layers.0.synapse.weight"
ADAM = "optimizer/state/0"
OURS = r"^\S*/stopped/checkpoint\.safetensors: "
NOT = OURS + r"not a checkpoint of this run \("

CHECKPOINTS = {
    "a momentum of another shape": (
        state(f"{ADAM}/exp_avg", torch.zeros(2)),
        NOT + r"optimizer\.state\.0\.exp_avg: a",
    ),
    "a momentum of no size": (state(f"{ADAM}/exp_avg", torch.zeros(0)), NOT + r"optimizer\.state\.0\.exp_avg: a"),
    "a momentum of another type": (state(f"{ADAM}/exp_avg", lambda m: m.double()), NOT + r".*type float64"),
    "no momentum": (state(ADAM, {"step": torch.zeros(())}), NOT + r"optimizer\.state\.0: holds \['step'\]"),
    "a momentum that is a number": (state(f"{ADAM}/exp_avg", 1.0), NOT + r".*of type float"),
    "a square below zero": (state(f"{ADAM}/exp_avg_sq", lambda m: -1 - m), NOT + r".*exp_avg_sq: below 0"),
    "a square of infinity": (
        state(f"{ADAM}/exp_avg_sq", lambda m: m / 0 + 1),
        NOT + r"optimizer.*NaN or infinite",
    ),
    "steps below zero": (state(f"{ADAM}/step", torch.tensor(-3.0)), NOT + r".*step: below 0"),
    "groups": (state("optimizer/param_groups", [{"maximize": True}]), NOT + r"optimizer: holds"),
    "a rate below zero": (state("optimizer/lr", [-1.0]), NOT + r"optimizer\.lr: -1\.0"),
    "a rate of infinity": (state("optimizer/lr", [math.inf]), NOT),
    "parameters too few": (state("optimizer/state", []), NOT + r"optimizer\.state: 0, but it must be a list of 4"),
    "a NaN weight": (state(f"net/{W}", lambda w: w * math.nan), NOT + rf"net\.{W} is NaN or infinite"),
    "complex weights": (state(f"net/{W}", lambda w: w.to(torch.complex64)), NOT + r".*type complex64"),
    "weights true or false": (state(f"net/{W}", lambda w: w > 0), NOT + r".*type bool"),
    "double weights": (state(f"net/{W}", lambda w: w.double()), NOT + r".*type float64"),
    "weights transposed": (state(f"net/{W}", lambda w: w.T), NOT + r".*shape \(64, 6\)"),
    "a weight too many": (state(f"net/{ESCAPE}", torch.zeros(1)), NOT + r"net: holds"),
    "accuracy of 500 %": (state("best/numbers/accuracy", 5.0), NOT + r"best\.numbers\.accuracy=5\.0: must"),
    "a best epoch to come": (state("best/epoch", 2), NOT + r"best\.epoch: 2, but 1"),
    "a best weight of NaN": (state(f"best/weights/{W}", lambda w: w * math.nan), NOT + r"best\.weights.*NaN"),
    "a number of a name of its own": (
        state("best/numbers", {"loss": 1.0, ESCAPE: 1.0}),
        NOT + r"best\.numbers: holds",
    ),
    "epoch 10^6": (state("counters/epoch", 10**6), NOT + r"counters: step 3 is not in batch 0"),
    "epoch and step 10^6": (
        both(state("counters/epoch", 10**6), state("counters/step", 10**6)),
        OURS + "of epoch 1000000, but the run is to have 1",
    ),
    "step below zero": (state("counters/step", -1), NOT + r"counters\.step=-1"),
    "step 10^39": (state("counters/step", 10**39), NOT + r"counters\.step=1000"),
    "step 10^400": (state("counters/step", 10**400), OURS + r"damaged \(a number of 401 digits\)"),
    "a step that is true": (state("counters/step", True), NOT + r"counters\.step=True"),
    "seconds of NaN": (state("counters/seconds", math.nan), NOT + r"counters\.seconds=nan"),
    "no counters": (state("counters", {}), NOT + r"counters: holds \[\]"),
    "a loss that was words": (state("counters/first_loss", ESCAPE), NOT + r"counters\.first_loss='\\x1b"),
    "a generator of another kind": (
        state("rng/0/cpu", torch.zeros(5056, dtype=torch.uint8)),
        NOT + r"rng\.cpu: not",
    ),
    "a generator of another size": (state("rng/0/cpu", torch.zeros(9, dtype=torch.uint8)), NOT + r"rng\.cpu: not"),
    "generators of two processes": (state("rng", [{}, {}]), NOT + "made by 2 processes"),
    "states of a NaN": (
        state("rule/0/means", lambda z: [z[0] * math.nan, *z[1:]]),
        NOT + r"rule\.means\.0 is NaN",
    ),
    "states of another width": (state("rule/0/means", lambda z: [z[0].T, *z[1:]]), NOT),
    "complex states": (state("rule/0/means", lambda z: [z[0] * 1j, *z[1:]]), NOT + r".*complex64"),
    "ages of a word": (state("rule/0/ages", ["a"]), NOT + "state: ages"),
    "a rule of words": (state("rule", ESCAPE), NOT + r"rule='\\x1b"),
    "an average of NaN": (state(f"average/module.{W}", lambda w: w * math.nan), NOT + r"average\..*NaN"),
    "averages below zero": (state("average/n_averaged", torch.tensor(-1)), NOT + r"average\.n_averaged: -1"),
    "a meter of another kind": (state("meter/told/metrics", {"loss": {}}), NOT + r"meter\.told\.metrics"),
    "a meter of 10^12 classes": (state("meter/told/classes", -(10**12)), NOT + r"meter\.told\.classes"),
    "a meter of NaN": (
        state("meter/told/metrics/loss/mean_value", lambda m: m * math.nan),
        NOT + r"meter\.told\.metrics\.loss\.mean_value: NaN",
    ),
    "a long header": (header('{"a": [' + "[]," * 3_000_000 + "[]]}"), OURS + r"damaged \(a header of 9,"),
    "a measure of no count": (state("meter/told/measures", {"a": [1.0, 0]}), NOT + r"meter\.told\.measures"),
    "one thing too many": (state("more", 1), NOT + r"state: holds"),
    "other settings": (state("settings", "0" * 64), OURS + "not a checkpoint of this run; it was made with other"),
    "another run's": (others, OURS + "not a checkpoint of this run; it was made with other"),
    "a former version's": (former, r"^\S*/stopped/checkpoint\.pt: of a former version of dualprop"),
    "a pickle": (text("stopped/checkpoint.safetensors", pickle.dumps(Malicious())), OURS + "damaged"),
    "nothing": (text("stopped/checkpoint.safetensors", b""), OURS + "damaged"),
    "a header larger than the file": (text("stopped/checkpoint.safetensors", b"\xff" * 64), OURS + "damaged"),
    "another format": (header("{}", format="dualprop 1"), OURS + "not a checkpoint of this version"),
    "a deep state": (header("[" * 100_000), OURS + r"damaged \(more than 50"),
    "a state that is no JSON": (header("{"), OURS + "damaged"),
    "a state that is a list": (header("[]"), OURS + "damaged"),
    "a tensor without a place": (header("{}"), OURS + "damaged"),
    "a tensor in two places": (header('{"a": {"$tensor": "x"}, "b": {"$tensor": "x"}}'), OURS + "damaged"),
    "a tensor by no name": (header('{"a": {"$tensor": ["x"]}}'), OURS + "damaged"),
    **{
        f"a {kind}": (special("stopped/checkpoint.safetensors", kind), OURS + said)
        for kind, said in {
            "pipe": r"damaged \(not a regular file",
            "device": r"damaged \(not a regular file",
            "large": r"damaged \(holds 2,199",
            "loop": "damaged",
        }.items()
    },
}

BIG_NET = entry("run/resolved.json", "net.hidden", [10**7])
NET = r"^\S*/run: weights of another net \("

CASES: dict[str, Case] = {
    **{f"checkpoint: {name}": Case(change, resumed, said) for name, (change, said) in CHECKPOINTS.items()},
    "settings: edited meanwhile": Case(
        entry("stopped/settings.json", "lr", 0.5),
        resumed,
        OURS + "not a checkpoint of this run; it was made with other",
    ),
    "settings: the record edited meanwhile": Case(
        entry("stopped/resolved.json", "rule.beta", 0.5),
        resumed,
        OURS + "not a checkpoint of this run; it was made",
    ),
    "settings: deep": Case(text("run/settings.json", DEEP), loaded, r"settings\.json: damaged .*more than 50"),
    "settings: a name": Case(
        entry("run/settings.json", ESCAPE, 1), loaded, r"settings\.json: \\x1b\[2J: Settings has no such"
    ),
    "settings: a name that is no Unicode": Case(
        entry("run/settings.json", "\ud800", 1), loaded, r"settings\.json: \\ud800: Settings has no such"
    ),
    "settings: 10^400": Case(entry("run/settings.json", "lr", f"={HUGE}"), loaded, r"settings\.json: damaged"),
    "settings: 10^39": Case(entry("run/settings.json", "epochs", 10**39), loaded, r"settings\.json: epochs=1000"),
    "settings: of types": Case(
        entry("run/settings.json", "hidden", {"a": []}), loaded, r"settings\.json: hidden="
    ),
    "settings: a rule": Case(
        entry("run/settings.json", "rule", ESCAPE), reported, r"unknown rule '\\x1b|not a checkpoint"
    ),
    "settings: large": Case(
        special("run/settings.json", "large"), loaded, r"settings\.json: damaged .*holds 2,199"
    ),
    "settings: a pipe": Case(special("run/settings.json", "pipe"), loaded, "not a run folder"),
    "record: a net of 3 GB": Case(
        BIG_NET, loaded, NET + r"net\.layers\.0\.synapse\.weight: a tensor of shape \(6, 64"
    ),
    "record: a net of 10^18": Case(entry("run/resolved.json", "net.hidden", [10**9] * 2), loaded, NET),
    "record: layers without end": Case(entry("run/resolved.json", "net.hidden", [1] * 9000), loaded, NET),
    "record: no list": Case(entry("run/resolved.json", "net.hidden", 3), loaded, NET),
    "record: a name": Case(
        entry("run/resolved.json", f"net.{ESCAPE}", 3), loaded, NET + r"\\x1b\[2J: mlp has no such"
    ),
    "record: no table": Case(entry("run/resolved.json", "net", [1]), loaded, r"resolved\.json: damaged"),
    "record: threads": Case(entry("run/resolved.json", "threads", 10**9), finished, "threads=1000000000: must be"),
    "weights: NaN": Case(
        lambda folder: weights(folder, lambda w: w * math.nan), loaded, r"best\.safetensors: .* is NaN or infinite"
    ),
    "weights: double": Case(lambda folder: weights(folder, lambda w: w.double()), loaded, NET + ".*float64"),
    "weights: a pipe": Case(
        special("run/best.safetensors", "pipe"), loaded, r"best\.safetensors: damaged .*regular"
    ),
    "weights: large": Case(
        special("run/best.safetensors", "large"), loaded, r"best\.safetensors: damaged .*holds"
    ),
    "result: invented": Case(
        entry("run/result.json", "test_accuracy", 0.999),
        reported,
        r"result\.json: accuracy 0\.999 of the test, but",
    ),
    "result: an invented top 5": Case(
        entry("run/result.json", "test_accuracy_top5", 0.999), reported, r"result\.json: top-5 accuracy 0\.999 of"
    ),
    "result: invented of the validation": Case(
        both(
            entry("run/result.json", "val_accuracy", 0.999),
            lambda folder: (folder / "run" / "checkpoint.safetensors").unlink(),
        ),
        reported,
        r"result\.json: validation accuracy 0\.999, but",
    ),
    "result: invented seconds": Case(
        entry("run/result.json", "seconds_per_epoch", 1e-9), reported, r"result\.json: 1e-09 seconds per epoch"
    ),
    "result: of a run that goes on": Case(
        both(state("counters/epoch", 0, "run"), state("counters/step", 0, "run")),
        reported,
        r"result\.json: a result, but checkpoint\.safetensors is of epoch 0 of 1",
    ),
    "result: invented, and resumed": Case(
        entry("run/result.json", "best_epoch", 9), finished, r"result\.json: epoch 9"
    ),
    "result: of 500 %": Case(
        entry("run/result.json", "test_accuracy", 5.0), finished, r"test_accuracy=5\.0: must be"
    ),
    "result: of words": Case(
        entry("run/result.json", "test_loss", ESCAPE), finished, r"test_loss='\\x1b\[2J': must"
    ),
    "result: of a name": Case(entry("run/result.json", ESCAPE, 1), reported, r"result\.json: damaged \(\\x1b"),
    "result: 10^400": Case(entry("run/result.json", "test_loss", f"={HUGE}"), finished, r"result\.json: damaged"),
    "result: deep": Case(text("run/result.json", DEEP), finished, r"result\.json: damaged"),
    "result: a list": Case(text("run/result.json", "[]"), finished, r"result\.json: damaged"),
    "result: not UTF-8": Case(text("run/result.json", b"\xff\xfe{}"), finished, r"result\.json: damaged"),
    "result: of a damaged checkpoint": Case(
        text("run/checkpoint.safetensors", b"x" * 100), finished, r"checkpoint\.safetensors: damaged"
    ),
    "metrics: a pipe": Case(
        special("run/metrics.jsonl", "pipe"), reported, r"metrics\.jsonl: cannot be read \(not a"
    ),
    "metrics: deep": Case(text("run/metrics.jsonl", DEEP + "\n"), reported, r"metrics\.jsonl: damaged"),
    "metrics: words": Case(
        line(kind="epoch", step=1, loss=ESCAPE), reported, r"metrics\.jsonl: damaged \(loss: not"
    ),
    "metrics: a kind": Case(line(kind=ESCAPE, step=1), reported, r"metrics\.jsonl: damaged"),
    "metrics: steps below zero": Case(line(kind="epoch", step=-1), reported, r"metrics\.jsonl: damaged \(step=-1"),
    "metrics: steps of none": Case(line(kind="epoch"), reported, r"metrics\.jsonl: damaged \(step=None"),
    "metrics: cosines of one": Case(
        line(kind="epoch", step=1, loss=1.0, accuracy=0.5, cosine=0.5),
        reported,
        r"metrics\.jsonl: damaged \(cosine=0\.5",
    ),
    "metrics: cosines of another net": Case(
        line(kind="epoch", step=1, loss=1.0, accuracy=0.5, cosine=[0.5]),
        reported,
        r"metrics\.jsonl: damaged \(its",
    ),
    "metrics: an epoch of 500 %": Case(
        line(kind="epoch", step=1, loss=1.0, accuracy=5.0), reported, r"metrics\.jsonl: damaged \(accuracy=5\.0"
    ),
    "metrics: an epoch twice": Case(
        epoch(more=1), reported, r"metrics\.jsonl: damaged \(its epochs are not 1\.\.1"
    ),
    "metrics: a cosine of 10^308": Case(
        epoch(cosine=[1e308, -1e308]), reported, r"metrics\.jsonl: damaged \(cosine=\[1e"
    ),
    "metrics: a loss of NaN": Case(epoch(val_loss=math.nan), reported, r"metrics\.jsonl: damaged \(val_loss=nan"),
    "metrics: hundreds of layers": Case(epoch(cosine=[0.5] * 400), reported, "read"),
    "metrics: a line without end": Case(
        text("run/metrics.jsonl", '{"a": "' + "b" * 2**21), reported, r"metrics\.jsonl: damaged"
    ),
    "metrics: no test": Case(
        text("run/metrics.jsonl", ""), reported, r"result\.json: a result, but metrics\.jsonl has"
    ),
    "environment: a list": Case(text("run/environment.json", "[]"), reported, r"environment\.json: damaged"),
    "environment: of types": Case(
        entry("run/environment.json", "versions", 3), reported, r"environment\.json: damaged"
    ),
    "environment: deep": Case(text("run/environment.json", DEEP), reported, r"environment\.json: damaged"),
    "comparison: of types": Case(
        entry("compare/comparison.json", "rules", [[1]]), compared, r"comparison\.json: damaged"
    ),
    "comparison: seeds": Case(
        entry("compare/comparison.json", "seeds", 3), compared, r"comparison\.json: damaged"
    ),
    "comparison: deep": Case(text("compare/comparison.json", DEEP), compared, r"comparison\.json: damaged"),
    "comparison: a name": Case(
        entry("compare/comparison.json", ESCAPE, 1), compared, r"comparison\.json: damaged"
    ),
    "comparison: recipe": Case(
        entry("compare/comparison.json", "recipe", [1]), compared, r"comparison\.json: damaged"
    ),
    "comparison: left out": Case(
        entry("compare/comparison.json", "left_out", 3), compared, r"comparison\.json: damaged"
    ),
    "comparison: invented": Case(
        entry("compare/bp-seed0/result.json", "test_accuracy", 0.999), compared, r"result\.json: accuracy 0\.999"
    ),
    "comparison: another run in a place": Case(
        swapped, compared, r"compare/dp-seed0: rule='dp': contradicts the run, which was started with 'bp'"
    ),
    "recipe: a long word": Case(text("mine.toml", "a" * 65_000), recipe, r"mine\.toml: not a recipe"),
    "recipe: deep": Case(text("mine.toml", "a = " + DEEP), recipe, r"mine\.toml: not a recipe"),
    "recipe: deep tables": Case(text("mine.toml", "a." * 20_000 + "b = 1"), recipe, r"mine\.toml: not a recipe"),
    "recipe: 10^400": Case(text("mine.toml", f"lr = {HUGE}"), recipe, r"mine\.toml: not a recipe \(lr"),
    "recipe: 10^5000": Case(text("mine.toml", f"lr = 1{'0' * 5000}"), recipe, r"mine\.toml: not a recipe"),
    "recipe: a name": Case(text("mine.toml", '"\\u001b[2J" = 1'), recipe, r"mine\.toml: not a recipe \(\\x1b"),
    "recipe: not UTF-8": Case(text("mine.toml", b"\xff\xfe"), recipe, r"mine\.toml: not a recipe"),
    "recipe: a pipe": Case(special("mine.toml", "pipe"), recipe, r"mine\.toml: not a recipe \(not a regular file"),
    "recipe: large": Case(special("mine.toml", "large"), recipe, r"mine\.toml: not a recipe \(holds"),
    "recipe: a folder": Case(lambda folder: (folder / "mine.toml").mkdir(), recipe, "not a recipe"),
}


def weights(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors, words = format.read_tensors(folder / "run" / "best.safetensors")
    changed = format.written_tensors({name: change(value) for name, value in tensors.items()}, words)
    (folder / "run" / "best.safetensors").write_bytes(changed)
