"""`kill -9` at random moments of runs of every kind, each of which then ends as the run that was never killed.

`python -m tests.training.kills 50` kills that often, over eight rules.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dualprop.runs.folder import Run
from tests.training.test_resume import assert_same

RULES = ("bp", "dp", "l-dp", "p-dp", "r-dp", "kp-dp", "ms-dp", "dtp")
OPTIONS = ("--hidden", "24,16", "--epochs", "40", "--batch-size", "40", "--augment", "--ema", "0.9")
OFTEN = ("--checkpoint-every", "0", "--log-every", "3")


def started(path: Path, rule: str) -> subprocess.Popen[bytes]:
    """The one command that starts a run or goes on with it."""
    command = [sys.executable, "-m", "dualprop", "train", "--run", str(path), "--resume", "auto", "--rule", rule]
    return subprocess.Popen([*command, *OPTIONS, *OFTEN], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()[-2000:]


def killed(path: Path, rule: str, kills: int, rng: random.Random) -> int:
    """Kill a run so often, if it lasts so long, and let it end; how often it was."""
    done = 0
    for _ in range(kills):
        process = started(path, rule)
        before, deadline = written(path), time.monotonic() + 120
        while process.poll() is None and written(path) == before and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.6))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += 1
        process.communicate()
    ended(started(path, rule))
    return done


def written(path: Path) -> int:
    try:
        return (path / "metrics.jsonl").stat().st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    rng, total, kills = random.Random(0), 0, int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for number, rule in enumerate(RULES):
            whole, path = Path(folder) / f"{rule}-whole", Path(folder) / rule
            ended(started(whole, rule))
            done = killed(path, rule, (kills + number) // len(RULES), rng)
            assert_same(whole, path)
            assert Run.open(path).result is not None
            left = [file.name for file in path.iterdir() if file.name.endswith(".draft")]
            print(f"{rule}: {done} kills, the same to the bit{f', but {left}' if left else ''}", flush=True)
            total += done
    print(f"{total} kills over {len(RULES)} rules")
