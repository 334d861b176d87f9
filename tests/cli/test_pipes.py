"""Pipes that nobody reads to the end, and streams that are closed."""

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "dualprop"]
TRAIN = ["train", "--hidden", "8", "--epochs", "2", "--no-alignment", "--run", "r"]


def shell(command, folder):
    words = " ".join(COMMAND)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('dualprop', words)}"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", ["dualprop train --help | head -1", "dualprop data list | true"])
def test_a_reader_that_has_had_enough(tmp_path, command):
    done = shell(command, tmp_path)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


@pytest.mark.slow
def test_training_into_head(tmp_path):
    done = shell(f"dualprop {' '.join(TRAIN)} 2>&1 | head -1", tmp_path)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    done = shell("dualprop train --resume r", tmp_path)  # which is whole, wherever it was
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(tmp_path, closed):
    done = shell(f"dualprop {' '.join(TRAIN)} {closed}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert os.path.exists(tmp_path / "r" / "result.json")
    assert shell(f"dualprop --version {closed}", tmp_path).returncode == 0
