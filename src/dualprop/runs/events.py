"""Event files for TensorBoard, written without a thread, so that a full disk is an error where it is met."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class Events:
    """A new event file.

    Args:
        folder: where to make it.
        step: what older files there say of later steps no longer holds.
    """

    def __init__(self, folder: Path, step: int) -> None:
        file = (folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("xb")
        self._writer = RecordWriter(file)
        self._write(file_version="brain.Event:2")
        if step:
            self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers by their tags, at a step."""
        values = [Summary.Value(tag=tag, simple_value=number) for tag, number in numbers.items()]
        self._write(step=step, summary=Summary(value=values))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, **content: Any) -> None:
        event = Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())
