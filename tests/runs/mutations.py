"""Sound run folders and recipes, damaged at random: each is read, or refused in one line.

`python -m tests.runs.mutations 10000` tries that many, and says how many were read and refused; a second number is
that of the first, for others.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.torch

from dualprop import recipes
from dualprop.errors import DualpropError
from dualprop.runs import checkpoint as format
from dualprop.studies import comparison
from tests.data.mutations import damaged
from tests.limits import judged
from tests.runs.hostile import compared, finished, loaded, make, recipe, reported, resumed

TRAIN = comparison.train

READERS: dict[str, tuple[str, tuple[Callable[[Path], object], ...]]] = {
    "checkpoint": ("stopped/checkpoint.safetensors", (resumed,)),
    "state": ("stopped/checkpoint.safetensors", (resumed,)),
    "finished": ("run/checkpoint.safetensors", (finished, reported)),
    "best": ("run/best.safetensors", (loaded,)),
    "settings": ("run/settings.json", (loaded, finished, reported)),
    "resolved": ("run/resolved.json", (loaded, finished, reported)),
    "environment": ("run/environment.json", (reported,)),
    "result": ("run/result.json", (finished, reported)),
    "metrics": ("run/metrics.jsonl", (reported,)),
    "comparison": ("compare/comparison.json", (compared,)),
    "recipe": ("mine.toml", (recipe,)),
}
"""By a name for each kind: the file that is damaged, and what reads it."""


def sound(folder: Path) -> None:
    """What is damaged."""
    make(folder)
    shutil.copy(Path(str(recipes.shipped()["mnist-comparison"])), folder / "mine.toml")


def of(kind: str, content: bytes, rng: np.random.Generator) -> bytes:
    """The content, damaged; of "state" only what its header says."""
    if kind != "state":
        return damaged(content, rng)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_bytes(content)
        tensors, header = format.read_tensors(Path(folder) / "x")
        state = damaged(header["state"].encode(), rng).decode("utf-8", "replace")
        whole: bytes = safetensors.torch.save(tensors, {**header, "state": state})
        return whole


def untrained(settings: object, path: Path, **others: object) -> object:
    if not path.exists():
        raise DualpropError("a run that was not there is not trained here")
    return TRAIN(settings, path, **others)


def tried(kind: str, number: int, folder: Path) -> str:
    """Read one damaged file in a copy of a sound folder: "read" or "refused"; all else is an AssertionError."""
    name, readers = READERS[kind]
    path = folder / name
    before = path.read_bytes()
    path.write_bytes(of(kind, before, np.random.default_rng(number)))
    with mock.patch.object(comparison, "train", untrained):
        return judged(*(partial(read, folder) for read in readers))


if __name__ == "__main__":
    kinds, counts = sorted(READERS), Counter()
    with tempfile.TemporaryDirectory() as place:
        sound(Path(place) / "sound")
        count, first = (*map(int, sys.argv[1:]), 0)[:2]
        for number in range(first, first + count):
            kind, folder = kinds[number % len(kinds)], Path(place) / "its"
            shutil.copytree(Path(place) / "sound", folder)
            try:
                counts[tried(kind, number, folder)] += 1
            except Exception as error:
                counts["wrong"] += 1
                print(f"{kind} {number}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            shutil.rmtree(folder)
    print(f"{sum(counts.values())} files of {len(kinds)} kinds: {dict(counts)}")
