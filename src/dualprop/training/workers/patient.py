"""A run folder on a disk that may be full: what cannot be written is a warning, not the end of training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from typing_extensions import override

from dualprop.errors import CheckpointError
from dualprop.runs.folder import Run

logger = logging.getLogger("dualprop")


class PatientRun(Run):
    """A run that goes on where checkpoints and metrics cannot be written; its result must be."""

    _warned = False

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except CheckpointError as error:
            if not self._warned:
                logger.warning("%s; training goes on", error)
            self._warned = True
        else:
            self._warned = False

    @override
    def save(self, checkpoint: Mapping[str, Any]) -> None:
        self._try(lambda: super(PatientRun, self).save(checkpoint))

    @override
    def save_weights(self, name: str, weights: Mapping[str, Tensor], **notes: object) -> None:
        self._try(lambda: super(PatientRun, self).save_weights(name, weights, **notes))

    @override
    def log(self, **record: Any) -> None:
        self._try(lambda: super(PatientRun, self).log(**record))
