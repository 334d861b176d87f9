"""`dualprop bench`: how fast every rule is, beside back-propagation in plain PyTorch."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dualprop.arguments import Count, Several, read
from dualprop.cli._options import constants, names, run_folder
from dualprop.errors import DualpropError, Interrupted, printable

FORMATS = (".png", ".pdf", ".svg")


def bench(
    *,
    rules: Annotated[str | None, Parameter(show_default="all")] = None,
    nets: str = "mlp,vgg_like,vgg16",
    precisions: str = "float32,bf16",
    batch_size: int = 100,
    features: int = 784,
    hidden: str = "1000,1000,1000",
    repeats: int = 10,
    budget: float = 60.0,
    compile: Annotated[bool, Parameter(negative="")] = False,
    device: str = "auto",
    energy: Annotated[str | None, Parameter(show_default="nothing is counted")] = None,
    out: Annotated[Path | None, Parameter(show_default="runs/bench-TIME")] = None,
    json: Annotated[Path | None, Parameter(show_default="OUT/bench.json")] = None,
    chart: Annotated[Path | None, Parameter(show_default="OUT/bench.png")] = None,
) -> None:
    """Check what is to be measured and where to write it, then measure.

    Args:
        rules: Names of rules, separated by commas; besides them bp (the loop in plain PyTorch), convert, bp-fused
            and dp-fused.
        nets: Names of nets without cycles, separated by commas.
        precisions: Of float32 and bf16.
        batch_size: Samples in a step.
        features: Of a sample of the mlp.
        hidden: Neurons in each hidden layer of the mlp.
        repeats: Pairs of a rule's step and bp's.
        budget: Seconds after which a row begins no further pair.
        compile: Measure everything compiled, too.
        device: auto, cpu, cuda or mps.
        energy: Count what hardware would pay: as for compare.
        out: The folder to make, for table, JSON and chart.
        json: Where to write every number.
        chart: Where to draw the step times: a .png, .pdf or .svg.
    """
    folder = out or run_folder("bench")
    _check_places(folder, json, chart)

    # silence about what is no news here: the profiler's start, memory older than its records, convert's summaries
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("dualprop").setLevel(logging.WARNING)

    from dualprop.runs.documents import write_json
    from dualprop.studies.bench.plan import Plan
    from dualprop.studies.bench.render import render
    from dualprop.studies.bench.run import bench as measure

    plan = Plan(
        rules=None if rules is None else names("rules", rules),
        nets=names("nets", nets),
        precisions=names("precisions", precisions),
        batch_size=batch_size,
        features=features,
        hidden=read(hidden, Several[Count]),
        repeats=repeats,
        budget=budget,
        compile=compile,
        device=device,
        energy=constants(energy),
    )
    folder.mkdir(parents=True)
    report, whole = measure(plan)
    numbers, picture = json or folder / "bench.json", chart or folder / "bench.png"
    write_json(numbers, report.as_dict())
    report = render(numbers, folder / "table.md", picture)
    if not whole:
        raise Interrupted(f"stopped; what had been measured is in {numbers}")
    report.print()
    for what, path in (("table", folder / "table.md"), ("numbers", numbers), ("picture", picture)):
        print(printable(f"{what}: {path}"))


def _check_places(folder: Path, numbers: Path | None, chart: Path | None) -> None:
    """Refuse places where nothing can be written, before anything is measured."""
    if folder.exists():
        raise DualpropError(f"out={folder}: exists; choose another folder")
    for name, path in (("json", numbers), ("chart", chart)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise DualpropError(f"{name}={path}: must be a file in a folder that exists")
    if chart is not None and chart.suffix not in FORMATS:
        raise DualpropError(f"chart={chart}: must end in {', '.join(FORMATS)}")
