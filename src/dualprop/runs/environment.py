"""What the numbers of a run depend on besides its settings."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[3]
"""The checkout, if the package runs from its own."""


def environment() -> dict[str, Any]:
    """Versions, machine, threads, and the commit where it is known; None for what is not."""
    names = ("dualprop", "torch", "torchvision", "torchmetrics", "numpy", "scikit-learn")
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain") if commit else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in names},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": commit,
        "git_dirty": None if changes is None else changes != "",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str | None:
    """What git says of the package's own checkout; None where it runs from anywhere else.

    Git runs programs that a checkout's configuration names, so it is asked about no checkout that merely
    surrounds the package.
    """
    if not _own(ROOT):
        return None
    command = ["git", f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}", *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=10,
            cwd=ROOT,
            env={**own, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _own(root: Path) -> bool:
    """Whether a folder is the checkout of this package: it has a .git, and its pyproject.toml is ours."""
    here = root / "src" / "dualprop" / "runs" / "environment.py"
    try:
        project = (root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return here == Path(__file__) and (root / ".git").exists() and '\nname = "dualprop"\n' in project
