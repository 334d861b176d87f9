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
import logging
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import filelock
from torch import Tensor
from typing_extensions import Self

from dualprop import files
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs import checkpoint as format
from dualprop.runs.environment import environment
from dualprop.runs.events import Events
from dualprop.runs.settings import Settings

logger = logging.getLogger("dualprop")

CHECKPOINT = "checkpoint.safetensors"
FORMER = "checkpoint.pt"
"""What it was called when it was a pickle."""

SMALL = 2**16
"""Bytes of a file of settings, at most."""
LARGE = 2**30
"""Of metrics, which are read line by line."""
MEASURED = 2**24
"""Of measurements."""
LONGEST = 2**20
"""Of one line of them."""


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
            raise CheckpointError(f"{path}: cannot be made ({_reason(error)})") from None
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
            raise CheckpointError(f"{self.path}: cannot be written ({_reason(error)})") from None
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
        return list(self._records(*kinds))

    def _records(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """The same, one at a time."""
        try:
            for line in self._lines():
                if line.endswith(b"\n") and ((record := _record(line))["kind"] in kinds or not kinds):
                    yield record
        except (ValueError, TypeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"{self.path / 'metrics.jsonl'}: damaged ({_reason(error)})") from None

    def readable_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics that are records; how many are not is a warning."""
        records, unreadable = [], 0
        for line in self._lines():
            try:
                records.append(_record(line))
            except (ValueError, TypeError):
                unreadable += 1
        if unreadable:
            lines = "1 line that is no record" if unreadable == 1 else f"{unreadable} lines that are no records"
            logger.warning("%s: %s left out", self.path / "metrics.jsonl", lines)
        return records

    def _lines(self) -> Iterator[bytes]:
        """The lines of metrics as they are, one at a time; one that is too long is several."""
        path = self.path / "metrics.jsonl"
        try:
            with files.open_regular(path, LARGE) as lines:
                while line := lines.readline(LONGEST):
                    yield line if len(line) < LONGEST else line + b"\n"  # which is then no record
        except FileNotFoundError:
            return
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({_reason(error)})") from None

    def log(self, **record: Any) -> None:
        """Append one line of metrics.

        Raises:
            CheckpointError: if it cannot be written.
        """
        with self.writing("metrics.jsonl"), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")

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
                f"{self.path}: the {what} cannot be written ({_reason(error)}); "
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
        kept = (record for record in self._records("train", "epoch") if record["step"] <= step)
        lines = (f"{json.dumps(record)}\n".encode() for record in kept)
        replace_file(self.path / "metrics.jsonl", lambda f: f.writelines(lines))


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


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file.

    Raises:
        CheckpointError: if it cannot be written.
    """
    write_text(path, json.dumps(values, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file of text, in UTF-8.

    Raises:
        CheckpointError: if it cannot be written.
    """
    replace_file(path, lambda f: f.write(text.encode("utf-8", "backslashreplace")))


def read_json(path: Path, limit: int = SMALL) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Args:
        path: where it is.
        limit: the most bytes that it may hold.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        values = files.parse_json(files.read_regular(path, limit))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable ({_reason(error)})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, it should hold one JSON object")
    return values


def check_free(path: Path) -> Path:
    """A place for a run folder, refused where there is something.

    Raises:
        CheckpointError: if there is.
    """
    try:
        taken = path.is_symlink() or path.exists()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be made ({_reason(error)})") from None
    if taken:
        raise CheckpointError(f"{path}: exists; choose another folder, or continue it with --resume {path}")
    return path


def _record(line: bytes) -> dict[str, Any]:
    """A line of metrics, or a ValueError."""
    record = files.parse_json(line)
    if not isinstance(record, dict) or record.get("kind") not in ("train", "epoch", "test"):
        raise ValueError("a line that is no record")
    for name, value in record.items():
        values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
        if name != "kind" and not all(type(each) in (int, float) for each in values):
            raise ValueError(f"{name}: not numbers")
    if type(record.get("step")) is not int or record["step"] < 0:
        raise ValueError(f"step={record.get('step')!r}: not a number of batches")
    return record


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file as a whole, by what is written into an open draft.

    Raises:
        CheckpointError: if it cannot be written.
    """
    try:
        files.replace(path, write)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({_reason(error)}); what was there is still there"
        ) from None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
