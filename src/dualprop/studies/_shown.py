"""How one of many trainings shows how it goes."""

from __future__ import annotations

import logging
from typing import Any

from dualprop.runs.settings import Settings
from dualprop.training.callbacks import RunLine
from dualprop.training.callbacks.display import stderr

logger = logging.getLogger("dualprop")


def shown(settings: Settings) -> dict[str, Any]:
    """What `train` is told of it: as ever in a terminal, by one line elsewhere, if at all."""
    if stderr().is_terminal:
        return {"progress": True}
    line = RunLine(f"{settings.rule} on {settings.data}, seed {settings.seed}")
    return {"progress": False, "callbacks": [line] if logger.level <= logging.INFO else []}
