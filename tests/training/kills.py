"""`kill -9` at random moments of runs of every kind, each of which then ends as the run that was never killed.

`python -m tests.training.kills 50` kills that often, over eight rules.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from dualprop import Settings, train
from dualprop.runs.folder import Run
from tests.training.test_resume import assert_same

RULES = ("bp", "dp", "l-dp", "p-dp", "r-dp", "kp-dp", "ms-dp", "dtp")
COMMON = Settings(
    hidden=(24, 16), epochs=8, batch_size=40, augment=True, ema=0.9, checkpoint_every=0, log_every=3, threads=1
)


def started(path: Path, rule: str) -> BaseProcess:
    """A process that starts a run or goes on with it."""
    process = multiprocessing.get_context("fork").Process(
        target=train, args=(replace(COMMON, rule=rule), path), kwargs={"resume": True, "progress": False}
    )
    process.start()
    return process


def ended(process: BaseProcess) -> None:
    process.join(600)
    assert process.exitcode == 0, process.exitcode


def killed(path: Path, rule: str, kills: int, rng: random.Random) -> int:
    """Kill a run so often, if it lasts so long, and let it end; how often it was."""
    done = 0
    for _ in range(kills):
        process = started(path, rule)
        before = written(path)
        while process.is_alive() and written(path) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.2))
        if process.is_alive():
            process.kill()
            done += 1
        process.join()
    ended(started(path, rule))
    return done


def written(path: Path) -> int:
    """When anything in a run folder was last made or replaced."""
    try:
        return max(file.stat().st_mtime_ns for file in os.scandir(path))
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    rng, total, kills = random.Random(0), 0, int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for number, rule in enumerate(RULES):
            whole, path = Path(folder) / f"{rule}-whole", Path(folder) / rule
            train(replace(COMMON, rule=rule), whole, progress=False)  # here: all is imported when others begin
            done = killed(path, rule, (kills + number) // len(RULES), rng)
            assert_same(whole, path)
            assert Run.open(path).result is not None
            left = [file.name for file in path.iterdir() if file.name.endswith(".draft")]
            assert not left, left
            print(f"{rule}: {done} kills, the same to the bit", flush=True)
            total += done
    print(f"{total} kills over {len(RULES)} rules")
