"""A run folder on a disk that may be full: what cannot be written is a warning, not the end of training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import override

from dualprop.errors import CheckpointError
from dualprop.runs.folder import Run

logger = logging.getLogger("dualprop")


class PatientRun(Run):
    """A run that goes on where checkpoints, weights and metrics cannot be written; its result must be."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._told: set[str] = set()

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """What cannot be written in it is told, once."""
        try:
            yield
        except CheckpointError as error:
            if str(error) not in self._told:
                logger.warning("%s; training goes on", error)
            self._told.add(str(error))

    @override
    def save(self, checkpoint: Mapping[str, Any]) -> None:
        with self._warning():
            super().save(checkpoint)

    @override
    def save_weights(self, name: str, weights: Mapping[str, Tensor], **notes: object) -> None:
        with self._warning():
            super().save_weights(name, weights, **notes)

    @override
    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        with self._warning(), super().writing(what):
            yield
