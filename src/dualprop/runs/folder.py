"""The run folder: settings, environment, metrics, checkpoints and weights of one training run.

settings.json       what was asked for
resolved.json       every value that was used, what was left to the rule, the net or the machine included
environment.json    versions, processor, threads, git commit
metrics.jsonl       one line of numbers at a time
events.out.*        the same for TensorBoard
checkpoint.pt       all that is needed to go on; replaced as a whole, never half-written
best.safetensors    the weights with the best validation accuracy
result.json         the test result, when the run is finished
.lock               held by the process that trains; what holds it ends with that
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dualprop.errors import CheckpointError
from dualprop.runs.settings import Settings

FORMAT = 1


class Run:
    """A run folder. Use `Run.create` for a new one and `Run.open` for one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path / ".lock", timeout=0)

    @classmethod
    def create(
        cls, path: Path, settings: Settings, resolved: Mapping[str, Any], checkpoint: Mapping[str, Any]
    ) -> Run:
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
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
            raise CheckpointError(f"{path}: cannot be made ({_first_line(error)})") from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Find a run folder.

        Raises:
            CheckpointError: if there is none.
        """
        if not (path / "settings.json").is_file():
            raise CheckpointError(f"{path}: not a run folder (it has no settings.json)")
        return cls(path)

    @property
    def settings(self) -> Settings:
        """The settings it was started with."""
        return Settings.from_dict(read_json(self.path / "settings.json"))

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
            raise CheckpointError(f"{self.path}: cannot be written ({_first_line(error)})") from None

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        _replace(self.path / "checkpoint.pt", lambda f: torch.save({"format": FORMAT, **checkpoint}, f))

    def load(self) -> dict[str, Any]:
        """The last checkpoint: tensors and plain containers, no code.

        Raises:
            CheckpointError: if it is missing, damaged, of another format, or holds anything but data.
        """
        path = self.path / "checkpoint.pt"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's remarks on files that it goes on to refuse
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise CheckpointError(f"{path}: missing") from None
        except pickle.UnpicklingError:
            raise CheckpointError(
                f"{path}: refused, it is damaged or holds more than tensors and numbers"
            ) from None
        except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: damaged ({_first_line(error)})") from None
        if not isinstance(checkpoint, dict) or checkpoint.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not a checkpoint of this version of dualprop")
        return checkpoint

    def save_weights(self, name: str, weights: Mapping[str, Tensor], **notes: object) -> None:
        """Replace a safetensors file."""
        data = safetensors.torch.save(
            {key: value.detach().cpu().contiguous() for key, value in weights.items()},
            metadata={key: str(value) for key, value in notes.items()},
        )
        _replace(self.path / name, lambda f: f.write(data))

    def load_weights(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Read a safetensors file: the weights and the notes.

        Raises:
            CheckpointError: if it is missing or damaged.
        """
        path = self.path / name
        try:
            with safetensors.safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except FileNotFoundError:
            raise CheckpointError(f"{path}: missing") from None
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"{path}: damaged ({error})") from None

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics; a last line cut short by a kill does not count."""
        path = self.path / "metrics.jsonl"
        lines = (
            path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.exists() else []
        )
        try:
            records = [json.loads(line) for line in lines if line.endswith("\n")]
            return [{**record, "step": int(record["step"])} for record in records]
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{path}: damaged ({_first_line(error)})") from None

    def log(self, **record: Any) -> None:
        """Append one line of metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as f:
            f.write(json.dumps(record) + "\n")

    def events(self, step: int) -> SummaryWriter | None:
        """The event file for TensorBoard, from `step` on; None where nothing is to be written."""
        return SummaryWriter(str(self.path), purge_step=step + 1 if step else None)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the test result."""
        write_json(self.path / "result.json", result)

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines that belong to steps after `step`: they will be computed again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        _replace(self.path / "metrics.jsonl", lambda f: f.write(text.encode("utf-8")))


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

    def events(self, step: int) -> SummaryWriter | None:
        """None: the writing process has one."""
        return None

    def finish(self, result: Mapping[str, Any]) -> None:
        """The writing process does."""

    def rewind_metrics(self, step: int) -> None:
        """The writing process does."""


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replace a JSON file."""
    text = json.dumps(values, indent=2) + "\n"
    _replace(path, lambda f: f.write(text.encode("utf-8")))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or unreadable ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: damaged, it should hold one JSON object")
    return values


def check_free(path: Path) -> Path:
    """A place for a run folder, refused where there is something.

    Raises:
        CheckpointError: if there is.
    """
    if path.exists():
        raise CheckpointError(f"{path}: exists; choose another folder, or continue it with --resume {path}")
    return path


def environment() -> dict[str, Any]:
    """What the numbers of a run depend on besides its settings."""
    names = ("dualprop", "torch", "torchvision", "torchmetrics", "numpy", "scikit-learn")
    commit = _commit()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in names},
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": commit,
        "git_dirty": None
        if commit is None or (changes := _git("status", "--porcelain")) is None
        else changes != "",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit that the package runs from: None unless it is a checkout's own file that runs."""
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    return _git("rev-parse", "HEAD") if tracked else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str | None:
    """What git says of the folder that the package runs from; None if it is no checkout."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name, flush it to disk, and only then give it its name."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with draft.open("wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(draft, path)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError where the disk is full
        with contextlib.suppress(OSError):
            draft.unlink()
        raise CheckpointError(
            f"{path}: cannot be written ({_first_line(error)}); what was there is still there"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
