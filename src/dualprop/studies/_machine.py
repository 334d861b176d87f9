"""What runs were measured on, in words; from their own record, for another machine may render it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dualprop.arguments import Count

ENVIRONMENT: dict[str, Any] = {
    "python": str,
    "versions": dict[str, str | None],
    "processor": str,
    "cores": Count | None,
    "threads": Count,
    "accelerator": str | None,
    "git_commit": str | None,
    "git_dirty": bool | None,
}
"""What `machine` reads."""


def machine(environment: Mapping[str, Any]) -> str:
    """Processor, threads, accelerator, versions and commit.

    Args:
        environment: as `dualprop.runs.environment.environment` gave it.
    """
    e = environment
    versions = ", ".join(f"{name} {e['versions'].get(name)}" for name in ("dualprop", "torch"))
    device = f", {e['accelerator']}" if e["accelerator"] else ""
    commit = f", commit {e['git_commit'][:10]}" if e["git_commit"] else ""
    changes = " with changes" if e["git_commit"] and e["git_dirty"] else ""
    threads = f"{e['threads']} thread{'s' * (e['threads'] != 1)}"
    computer = f"{e['processor']}, {e['cores']} cores, {threads}{device}"
    return f"{computer}, Python {e['python']}, {versions}{commit}{changes}"
