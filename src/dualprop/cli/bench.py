"""`dualprop bench`: how fast every rule is, beside back-propagation in plain PyTorch."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from dualprop.cli.options import run_folder
from dualprop.errors import DualpropError, Interrupted
from dualprop.runs.settings import whole_numbers

FORMATS = (".png", ".pdf", ".svg")


def bench(
    *,
    rules: Annotated[
        str | None,
        typer.Option(
            help="Names of rules, separated by commas; besides them bp (the loop in plain PyTorch), convert, "
            "bp-fused and dp-fused.",
            show_default="all",
        ),
    ] = None,
    nets: Annotated[str, typer.Option(help="Of mlp, vgg_like, vgg16 and hopfield_cnn.")] = "mlp,vgg_like,vgg16",
    precisions: Annotated[str, typer.Option(help="Of float32 and bf16.")] = "float32,bf16",
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 100,
    hidden: Annotated[str, typer.Option(help="Neurons in each hidden layer of the mlp.")] = "1000,1000,1000",
    repeats: Annotated[int, typer.Option(help="Pairs of a rule's step and bp's.")] = 10,
    budget: Annotated[float, typer.Option(help="Seconds after which a row begins no further pair.")] = 60.0,
    compile: Annotated[bool, typer.Option("--compile", help="Measure everything compiled, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder to make, for table, JSON and chart.", show_default="runs/bench-TIME"),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(help="Where to write every number.", show_default="OUT/bench.json"),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(help="Where to draw the step times: a .png, .pdf or .svg.", show_default="OUT/bench.png"),
    ] = None,
) -> None:
    """Measure seconds per step and peak memory of every rule beside back-propagation, and the machine's ceilings.

    A rule's steps alternate with those of bp; what is compared is the median of their ratios.

    For numbers worth keeping, let nothing else run.
    """
    folder = out or run_folder("bench")
    _check_places(folder, json, chart)

    # silence about what is no news here: the profiler's start, memory older than its records, convert's summaries
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    logging.getLogger("dualprop").setLevel(logging.WARNING)

    from dualprop.runs.folder import write_json
    from dualprop.studies.bench.chart import draw
    from dualprop.studies.bench.plan import Plan
    from dualprop.studies.bench.run import bench as measure

    plan = Plan(
        rules=None if rules is None else _names(rules),
        nets=_names(nets),
        precisions=_names(precisions),
        batch_size=batch_size,
        hidden=whole_numbers("hidden", hidden),
        repeats=repeats,
        budget=budget,
        compile=compile,
        device=device,
    )
    folder.mkdir(parents=True)
    report, whole = measure(plan)
    numbers, picture = json or folder / "bench.json", chart or folder / "bench.png"
    write_json(numbers, report.as_dict())
    (folder / "table.md").write_text(report.markdown())
    if report.rows:
        draw(report, picture)
    if not whole:
        raise Interrupted(f"stopped; what had been measured is in {numbers}")
    report.print()
    typer.echo(f"table: {folder / 'table.md'}\nnumbers: {numbers}\npicture: {picture}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_places(folder: Path, numbers: Path | None, chart: Path | None) -> None:
    """Refuse places where nothing can be written, before anything is measured."""
    if folder.exists():
        raise DualpropError(f"out={folder}: exists; choose another folder")
    for name, path in (("json", numbers), ("chart", chart)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise DualpropError(f"{name}={path}: must be a file in a folder that exists")
    if chart is not None and chart.suffix not in FORMATS:
        raise DualpropError(f"chart={chart}: must end in {', '.join(FORMATS)}")
