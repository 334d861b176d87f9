"""`dualprop eval`: a run's best weights on test data, again or on other data."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from dualprop import data as datasets
from dualprop.cli._options import DeviceOptions, merged, read_table
from dualprop.data.own import OWN
from dualprop.errors import DualpropError, printable
from dualprop.training.devices import spoken
from dualprop.training.predictor import Predictor

logger = logging.getLogger("dualprop")


def eval(
    run: Path,
    /,
    *,
    data: Annotated[str | None, Parameter(show_default="the run's")] = None,
    data_root: Annotated[Path | None, Parameter(show_default="the run's")] = None,
    device: str = "auto",
    devices: Annotated[str | None, Parameter(show_default="the run's")] = None,
    own: DeviceOptions | None = None,
) -> None:
    """Test a run, on the hardware that it was trained on or on other hardware.

    Args:
        run: The run folder.
        data: Another data set with samples and classes alike, by name or as folder:PATH.
        data_root: Where the data is.
        device: auto, cpu, cuda or mps.
        devices: What the hardware is like, in place of what it was in training: a TOML file, or "ideal".
    """
    told: dict[str, Any] = {}
    if devices is not None:
        told["devices"] = {} if devices == "ideal" else read_table("devices", devices)
    given = merged(told, None, own)
    predictor = Predictor.open(run, device, given.get("devices"))
    s = predictor.settings
    if data is None and s.data == OWN:
        raise DualpropError(f"{run}: was trained on {OWN}, which Python alone has; name other data by --data")
    dataset = datasets.load(data or s.data, data_root or s.data_root, s.image_size, s.background)
    if data is None and predictor.fingerprint not in ("", datasets.fingerprint(dataset, s.verify_data)):
        raise DualpropError(f"data={s.data!r}: has other content than the run was trained on; name it by --data")
    if not predictor.finished:
        logger.warning("%s: not finished; these are its best weights so far", run)
    numbers = predictor.evaluate(dataset)
    shares = {"accuracy": "accuracy", "accuracy_top5": "top-5 accuracy"}
    shown = [f"{words} {numbers[name]:.2%}" for name, words in shares.items() if name in numbers]
    said = ", ".join([*shown, f"loss {numbers['loss']:.4f}"])
    where = f"{len(dataset.test):,} samples of {dataset.name}, weights of epoch {predictor.epoch}"
    on = f", on devices ({spoken(s.devices)})" if s.devices else ""
    print(printable(f"test {said}; {where}{on}"))
