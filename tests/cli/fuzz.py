"""Random lists of options: each ends in a result or in one line, with a whole run folder or none.

`python -m tests.cli.fuzz 1000` tries that many, and says how many were run and refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from unittest import mock

from dualprop import RULES, cli
from dualprop.runs.folder import Run
from dualprop.runs.settings import Settings

SECONDS = 120
BASE = {"--data": "digits", "--hidden": "5", "--epochs": "1", "--batch-size": "500", "--no-alignment": None}
NUMBERS = ("0", "1", "-1", "2", "0.5", "1e400", "nan", "1" * 400, "1,0.5", "0x10", "١", "1_0")
TEXTS = (
    "",
    " ",
    "x",
    "true",
    "a,b",
    "[",
    "=",
    "\x1b[2J",
    "é",
    "none",
    "../x",
    "5;6",
    "alpha=.5;beta=1",
    "[" * 3000,
)
WORDS = (*NUMBERS, *TEXTS, "'", '{"a": 1}', "alpha=0.5")
FITTING = {
    "--rule": tuple(RULES),
    "--rules": ("bp", "bp,dp", "dp,,bp", "lpom", "bp,bp"),
    "--seeds": ("0", "0,1", "", "1,1"),
    "--net": ("mlp", "hopfield_mlp", "vgg16", "resnet8"),
    "--activation": ("tanh", "relu", "elu", "softmax"),
    "--loss": ("mse", "cross_entropy", "mse-linearised"),
    "--optimizer": ("adam", "sgd", "adamw"),
    "--lr-schedule": ("cosine", "constant"),
    "--schedule": ("sweep", "parallel", "random:5", "random:[1,2]", "sweep:2"),
    "--precision": ("bf16", "float32"),
    "--init": ("lecun-normal", "uniform-fan-in"),
    "--recipe": ("mnist-comparison", "nowhere.toml"),
    "--lr": ("0.1", "1e30", "1e-30"),
    "--hidden": ("4", "3,3", "[]"),
    "--val-fraction": ("0", "0.5", "0.999"),
}
HEAVY = ("--epochs", "--T1", "--T2", "--T", "--K", "--N", "--rounds", "--compile", "--image-size", "--warm-rounds")
"""Options of which a large number is a long run: they get words of no number, 1 or 2."""
LIGHT = ("1", "2", "0", "-1", "x", "", "0.5")


def options() -> list[str]:
    """All that train and compare know."""
    from dualprop.arguments import declared

    own = {name for method in RULES.values() for name in declared(method.rule)} - {"net", "loss", "seed"}
    names = [field.name for field in dataclasses.fields(Settings)] + sorted(own)
    flags = [f"--{name.replace('_', '-')}" for name in names]
    return [*flags, "--run", "--out", "--resume", "--recipe", "--rules", "--seeds", "--no-augment", "--bogus"]


def drawn(rng: random.Random) -> list[str]:
    """A list of options."""
    command = rng.choice(["train", "train", "compare"])
    chosen: dict[str, str | None] = dict(BASE)
    if command == "compare":
        chosen |= {"--rules": "bp,dp", "--seeds": "0"}
    chosen["--out"] = "made"
    for _ in range(rng.randint(0, 5)):
        name = rng.choice(options())
        pool = LIGHT if name in HEAVY else FITTING.get(name, ()) * 3 + WORDS
        chosen[name] = rng.choice(pool) if rng.random() < 0.93 else None
    words = [command]
    for name, value in chosen.items():
        words += [name] if value is None else [name, value]
    rng.random() < 0.1 and words.insert(rng.randint(1, len(words)), rng.choice(WORDS))
    return words


def tried(words: list[str], folder: Path) -> str:
    """Run the command line in a new folder: how it ended; an AssertionError where that was not as it should be."""
    before = os.getcwd()
    os.chdir(folder)
    signal.alarm(SECONDS)
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.object(sys, "argv", ["dualprop", *words]),
        ):
            try:
                cli.main()
            except SystemExit as exit:
                code = exit.code or 0
    finally:
        signal.alarm(0)
        os.chdir(before)
    last = (err.getvalue().strip() or "-").splitlines()[-1]
    assert code in (0, 2), code
    assert "Traceback" not in err.getvalue()
    assert code == 0 or last.startswith("dualprop: error: "), last
    assert last.isprintable(), last
    for path in folder.rglob("*"):
        assert not path.name.endswith(".draft"), path
    for settings in folder.rglob("settings.json"):
        Run.open(settings.parent).load()
    if code and not list(folder.rglob("settings.json")):
        made = [path.name for path in folder.iterdir()]
        assert not made or "diverged" in last, (made, last)
    return "run" if code == 0 else "refused"


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    rng, counts = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0), Counter()
    for number in range(int(sys.argv[1])):
        words = drawn(rng)
        place = Path(tempfile.mkdtemp())
        try:
            counts[tried(words, place)] += 1
        except BaseException as error:
            counts["wrong"] += 1
            print(f"{number} {words}: {type(error).__name__}: {str(error)[:300]}"[:900], flush=True)
        shutil.rmtree(place)
    print(f"{sum(counts.values())} lists of options: {dict(counts)}")
