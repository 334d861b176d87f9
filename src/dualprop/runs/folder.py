"""The run folder: settings, environment, metrics, checkpoints and weights of one training run.

settings.json           what was asked for
resolved.json           every value that was used, what was left to the rule, the net or the machine included
environment.json        versions, processor, threads, git commit
metrics.jsonl           one line of numbers at a time
events.out.*            the same for TensorBoard
checkpoint.safetensors  all that is needed to go on; replaced as a whole, never half-written
best.safetensors        the weights with the best validation accuracy
pictures.safetensors    filters and states to be looked at, in 8 bits
result.json             the test result, when the run is finished
.lock                   held by the process that trains; what holds it ends with that
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

import filelock
from torch import Tensor

from dualprop import files
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs import checkpoint as format
from dualprop.runs.documents import read_json, reason, replace_file, write_json
from dualprop.runs.environment import environment
from dualprop.runs.events import Events
from dualprop.runs.metrics import Metrics
from dualprop.runs.settings import Settings

CHECKPOINT = "checkpoint.safetensors"
FORMER = "checkpoint.pt"
"""What it was called when it was a pickle."""


class Recorded(Protocol):
    """Settings that a run folder can hold."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""


class Run:
    """A run folder. Use `Run.create` for a new one and `Run.open` for one that is there.

    Attributes:
        command: that of the command line which goes on with it.
    """

    command = "train"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = Metrics(path / "metrics.jsonl")
        self._lock = filelock.FileLock(path / ".lock", timeout=0)

    @classmethod
    def create(
        cls, path: Path, settings: Recorded, resolved: Mapping[str, Any], checkpoint: Mapping[str, Any]
    ) -> Self:
        """Make the folder with its settings, environment and first checkpoint, all at once or not at all.

        Args:
            path: where.
            settings: what was asked for.
            resolved: the values that are used, as JSON holds them.
            checkpoint: all that is needed to go on.

        Raises:
            CheckpointError: if there is something at `path`, or it cannot be written.
        """
        check_free(path)
        draft = path.with_name(f".{secrets.token_hex(8)}{files.DRAFT}")
        try:
            draft.mkdir(parents=True)
            run = cls(draft)
            write_json(draft / "settings.json", settings.as_dict())
            write_json(draft / "resolved.json", resolved)
            write_json(draft / "environment.json", environment())
            run.save(checkpoint)
            draft.rename(path)
        except OSError as error:
            check_free(path)  # another process may have been faster
            raise CheckpointError(f"{path}: cannot be made ({reason(error)})") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Find a run folder.

        Raises:
            CheckpointError: if there is none.
        """
        if not (path / "settings.json").is_file():
            raise CheckpointError(f"{path}: not a run folder (it has no settings.json)")
        if (other := _command(path)) not in ("", cls.command):
            raise CheckpointError(f"{path}: of another command; go on with: dualprop {other} --resume {path}")
        return cls(path)

    @property
    def settings(self) -> Settings:
        """The settings it was started with.

        Raises:
            CheckpointError: if they cannot be read, or are none.
        """
        path = self.path / "settings.json"
        try:
            return Settings.from_dict(read_json(path))
        except CheckpointError:
            raise
        except DualpropError as error:
            raise CheckpointError(f"{path}: {error}") from None

    @property
    def resolved(self) -> dict[str, Any] | None:
        """Every value that it uses, or None for a folder from before that was recorded."""
        path = self.path / "resolved.json"
        return read_json(path) if path.is_file() else None

    @property
    def result(self) -> dict[str, Any] | None:
        """The test result, or None while the run is not finished."""
        path = self.path / "result.json"
        return read_json(path) if path.is_file() else None

    @functools.cached_property
    def digest(self) -> str:
        """Of all that what was computed so far depends on: a checkpoint is made for it and goes with no other.

        It is that of the time when the run was claimed: what is edited later is not what is trained.
        """
        fixed, asked = self.settings.fixed(), read_json(self.path / "settings.json")
        used = self.resolved or {}
        content = {
            "settings": {name: fixed[name] for name in sorted(fixed.keys() & asked.keys())},
            **{name: used.get(name) for name in ("net", "rule", "optimizer", "data", "own")},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode("utf-8")).hexdigest()

    def claim(self) -> None:
        """Keep other processes from training this run, until `release` or the end of this process.

        Raises:
            CheckpointError: if one does.
        """
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise CheckpointError(f"{self.path}: another process is training this run") from None
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written ({reason(error)})") from None
        files.remove_drafts(self.path)
        vars(self).pop("digest", None)
        self.digest  # noqa: B018 - now, while the files are those that are about to be trained

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        content = format.dumped({**checkpoint, "settings": self.digest})
        replace_file(self.path / CHECKPOINT, lambda f: f.write(content))

    def load(self) -> dict[str, Any]:
        """The last checkpoint: tensors, numbers and words in plain containers.

        The tensors are mapped from the file: whoever keeps them copies them.

        Raises:
            CheckpointError: if it is missing, damaged, of another format, or made with other settings.
        """
        path = self.path / CHECKPOINT
        if not path.exists() and (self.path / FORMER).exists():
            raise CheckpointError(
                f"{self.path / FORMER}: of a former version of dualprop, which this one cannot go on with; the "
                "run's weights can be had by load_net, and a new run from them by --init-from"
            )
        checkpoint = format.loaded(path)
        if checkpoint.pop("settings", None) != self.digest:
            raise CheckpointError(
                f"{path}: not a checkpoint of this run; it was made with other settings than settings.json and "
                "resolved.json say"
            )
        return checkpoint

    def save_weights(self, name: str, weights: Mapping[str, Tensor], **notes: object) -> None:
        """Replace a safetensors file."""
        data = format.written_tensors(weights, {key: str(value) for key, value in notes.items()})
        replace_file(self.path / name, lambda f: f.write(data))

    def load_weights(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read a safetensors file: the weights, mapped from it, and the notes.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        return format.read_tensors(self.path / name)

    def metrics(self, *kinds: str) -> list[dict[str, Any]]:
        """The lines of metrics; a last line cut short by a kill does not count.

        Args:
            kinds: of "train", "epoch" and "test" those that are wanted; all by default.

        Raises:
            CheckpointError: if one is no record.
        """
        return list(self._metrics.records(*kinds))

    def readable_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics that are records; how many are not is a warning."""
        return self._metrics.readable()

    def log(self, **record: Any) -> None:
        """Append one line of metrics.

        Raises:
            CheckpointError: if it cannot be written.
        """
        with self.writing("metrics.jsonl"):
            self._metrics.append(record)

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """A context in which a disk that cannot be written is one line, with the way on.

        Args:
            what: is written in it.
        """
        try:
            yield
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: the {what} cannot be written ({reason(error)}); "
                f"once it can, go on with: dualprop {self.command} --resume {self.path}"
            ) from None

    def events(self, step: int) -> Events | None:
        """The event file for TensorBoard, from `step` on; None where nothing is to be written."""
        return Events(self.path, step)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the test result."""
        write_json(self.path / "result.json", result)

    def reopen(self, settings: Recorded) -> None:
        """Go on with a run, finished or not, by other settings: its result is no longer one."""
        with self.writing("settings.json"):
            (self.path / "result.json").unlink(missing_ok=True)
        write_json(self.path / "settings.json", settings.as_dict())

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines that will be computed again: those of steps after `step`, and any test."""
        self._metrics.rewind(step)


class ReadOnlyRun(Run):
    """A run folder that another process writes: here it is only read."""

    def claim(self) -> None:
        """The writing process does."""

    def release(self) -> None:
        """The writing process does."""

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """The writing process does."""

    def save_weights(self, name: str, weights: Mapping[str, Tensor], **notes: object) -> None:
        """The writing process does."""

    def log(self, **record: Any) -> None:
        """The writing process does."""

    def events(self, step: int) -> Events | None:
        """None: the writing process has one."""
        return None

    def finish(self, result: Mapping[str, Any]) -> None:
        """The writing process does."""

    def reopen(self, settings: Recorded) -> None:
        """The writing process does."""

    def rewind_metrics(self, step: int) -> None:
        """The writing process does."""


def _command(path: Path) -> str:
    """Which command made a run folder: streams have a source. Nothing for settings that cannot be read."""
    try:
        return "stream" if "source" in read_json(path / "settings.json") else "train"
    except CheckpointError:
        return ""


def check_free(path: Path, instead: str = "choose another folder, or continue it with --resume {path}") -> Path:
    """A place for what is to be made, refused where there is something.

    Args:
        path: the place.
        instead: what to do then.

    Raises:
        CheckpointError: if there is.
    """
    try:
        taken = path.is_symlink() or path.exists()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be made ({reason(error)})") from None
    if taken:
        raise CheckpointError(f"{path}: exists; {instead.format(path=path)}")
    return path
