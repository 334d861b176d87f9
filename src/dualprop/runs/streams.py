"""The record of a stream: its settings and its run folder, which is one like every other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dualprop.arguments import Count, CountOrZero, Grey, NotNegative, Portion, Positive, Seed, Several, checked
from dualprop.errors import CheckpointError, DualpropError
from dualprop.runs.documents import read_json
from dualprop.runs.folder import Run
from dualprop.runs.settings import _setting

KINDS = ("delayed", "present")


@checked
@dataclass(frozen=True)
class StreamSettings:
    """Everything that decides what a learner makes of a stream, and a few things that do not.

    Args:
        source: a name in `dualprop data list`, whose images come one by one; permuted-inputs, permuted-labels or
            gradual, which drift; folder:PATH, images in the order of their names; river:NAME, a data set of
            River's; or - for lines of JSON or CSV on standard input.
        hold: ticks for which every frame is shown.
        drift: let a held image walk and turn slowly.
        fps: frames a second; those that the learner is too slow for are dropped. 0 for all, as fast as may be.
        frames: ticks after which the stream ends; else its own end.
        period: frames between two changes of a source that drifts.
        target: the name of the label in a line of JSON or CSV.
        places: lines that may wait for the learner; whoever writes more waits, too.
        drop: leave out, and count, lines that find no place to wait, in place of making their writer wait.
        strict: stop at the first line or frame that cannot be read; else it is counted and left out.
        net: the net: a name in `dualprop.NETS`; one with cycles goes with pairing=present.
        hidden: neurons in each hidden layer, as 256,256; else 128,128, or the net's own.
        net_settings: the net's own settings, by name; else its defaults.
        activation: the hidden layers' potential.
        loss: the loss.
        alpha: α in [0, 1].
        beta: the strength of the nudges, positive.
        pairing: delayed, with delay lines, or present.
        late: ticks for which a label is waited for, with delay lines.
        step: normalised, centred or sgd.
        lr: learning rate.
        standardise: scale every number of a line by the mean and the deviation that it has had so far.
        image_size: side to which the images of a folder are resized.
        background: grey level, 0..255, that transparent images are laid on.
        seed: of the weights, the order of the images and what drifts.
        data_root: where the data is; else DUALPROP_DATA, else the user's cache folder.
        log_every: ticks between two lines of metrics.
        checkpoint_every: seconds between checkpoints.

    Raises:
        DualpropError: for a number out of range. Names are looked up when the stream begins.
    """

    source: str = _setting("data", "mnist")
    hold: Count = _setting("data", 1)
    drift: bool = _setting("data", False)
    fps: NotNegative = _setting("data", 0.0, identity=False)
    frames: Count | None = _setting("run", None, identity=False)
    period: Count = _setting("data", 5000)
    target: str = _setting("data", "y")
    places: Count = _setting("data", 1000, identity=False)
    drop: bool = _setting("data", False, identity=False)
    strict: bool = _setting("data", False, identity=False)
    net: str = _setting("what", "mlp")
    hidden: Several[Count] | None = _setting("what", None)
    net_settings: Mapping[str, Any] = _setting("what", {})
    activation: str = _setting("what", "relu")
    loss: str = _setting("what", "cross_entropy")
    alpha: Portion = _setting("rule", 0.5)
    beta: Positive = _setting("rule", 0.1)
    pairing: Literal["delayed", "present"] = _setting("rule", "delayed")
    late: CountOrZero = _setting("rule", 0)
    step: str = _setting("optimizer", "normalised")
    lr: NotNegative = _setting("optimizer", 0.3)
    standardise: bool = _setting("data", True)
    image_size: Count | None = _setting("data", None)
    background: Grey = _setting("data", 255)
    seed: Seed = _setting("run", 0)
    data_root: str | None = _setting("data", None, identity=False)
    log_every: Count = _setting("run", 1000)
    checkpoint_every: NotNegative = _setting("run", 60.0, identity=False)

    def __post_init__(self) -> None:
        if self.late and self.pairing != "delayed":
            raise DualpropError(f"late={self.late}: goes with pairing=delayed")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    def replaced(self, changes: Mapping[str, Any]) -> StreamSettings:
        """These settings with some of them changed, of those that a stream does not depend on.

        Raises:
            DualpropError: for a name that is not a setting, or a change that contradicts the run's.
        """
        new = dataclasses.replace(self, **changes)
        for name, before in self.fixed().items():
            if (after := getattr(new, name)) != before:
                raise DualpropError(f"{name}={after!r}: contradicts the run, which was started with {before!r}")
        return new

    def fixed(self) -> dict[str, Any]:
        """The settings that every tick depends on."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.metadata["identity"]}


class StreamRun(Run):
    """The run folder of a stream."""

    command = "stream"

    @property
    def settings(self) -> StreamSettings:  # type: ignore[override]
        """The settings it was started with.

        Raises:
            CheckpointError: if they cannot be read, or are none of a stream.
        """
        path = self.path / "settings.json"
        try:
            return StreamSettings(**read_json(path))
        except CheckpointError:
            raise
        except DualpropError as error:
            raise CheckpointError(f"{path}: {error}") from None
