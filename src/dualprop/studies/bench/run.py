"""The measurement: row by row, each beside bp, and ceilings last.

glibc remembers the largest block that was ever freed, and keeps memory of that size from then on: what the rows
are timed in must not have seen the matrices of the ceilings.
"""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import Progress

from dualprop.errors import DualpropError
from dualprop.runs.environment import environment
from dualprop.studies.bench import ceilings, timing
from dualprop.studies.bench.memory import peak_bytes
from dualprop.studies.bench.plan import Plan
from dualprop.studies.bench.report import Measurements, Row
from dualprop.studies.bench.subjects import Subject, subjects
from dualprop.studies.bench.workload import Workload
from dualprop.training.experiment import PRECISIONS, device
from dualprop.training.interrupt import Interrupt

SLOW = 4
"""Into the budget of a row: if not even so many steps fit, one is all."""


def bench(plan: Plan) -> tuple[Measurements, bool]:
    """Measure what the plan says.

    Shows on stderr what is being measured. Each row's steps alternate with those of bp on the same net.

    Args:
        plan: what to measure.

    Returns:
        The report, and whether it is whole: Ctrl-C and SIGTERM end it after the row that is being measured.
    """
    chosen = device(plan.device)
    precisions = {name: PRECISIONS[name] for name in plan.precisions}
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    total = 1 + len(plan.nets) * len(precisions) * len(plan.rows())
    # a bar that moved by itself would take time from what is measured
    with Interrupt() as interrupt, Progress(console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("rows", total=total)
        progress.refresh()
        report = Measurements(environment(), json.loads(json.dumps(dataclasses.asdict(plan))), [])

        def show(what: str) -> None:
            progress.update(task, advance=1, description=what, refresh=True)

        whole = _rows(plan, report, interrupt, console, show)
        show("ceilings")
        report.ceilings.extend(
            ceilings.measure(precisions, repeats=plan.repeats, budget=plan.budget, device=chosen)
        )
    return report, whole


def _rows(
    plan: Plan, report: Measurements, interrupt: Interrupt, console: Console, show: Callable[[str], None]
) -> bool:
    """Measure row after row; False if that was interrupted."""
    for net in plan.nets:
        for precision in plan.precisions:
            workload = Workload(
                *(net, plan.features, plan.hidden, PRECISIONS[precision], plan.batch_size),
                *(device(plan.device), plan.constants),
            )
            bp = subjects()["bp"].make(workload, False)
            for name, compiled in plan.rows():
                if interrupt.asked:
                    return False
                label = f"{name} compiled" if compiled else name
                show(f"{net} {precision} {label}")
                if compiled:
                    torch.compiler.reset()  # what it may keep is bounded, and other rows' is not needed
                try:
                    subject = subjects()[name].make(workload, compiled)
                    row = timed(label, precision, workload, subject, bp, plan)
                except DualpropError as error:  # a net that the rule does not take, an inference that diverges
                    report.left_out.append(f"{net}, {precision}: {label} left out, {error}")
                    console.print(report.left_out[-1])
                    continue
                report.rows.append(row)
                console.print(
                    f"{net:8s}  {precision:7s}  {label:16s}  {1e3 * row.step.median:9.2f} ms"
                    f"  {row.ratio.median:5.2f} × bp  n = {len(row.seconds)}"
                )
                del subject
                gc.collect()  # what the next row is measured in is not to be the last one's litter
    return True


def timed(label: str, precision: str, workload: Workload, subject: Subject, bp: Subject, plan: Plan) -> Row:
    """The times of a subject beside bp, then the peak of more steps.

    A step that takes a good part of the budget is its row's only one, and its peak is not asked for.
    """
    first, work = timing.answered(subject.count, workload.device)
    if first > plan.budget / SLOW:
        seconds, bp_seconds = [first], [timing.seconds(bp.step, workload.device)]
        peak = None
    else:
        work = (
            subject.count()
        )  # of a step that is not the first: a lazy rule's inference starts from nothing there
        seconds, bp_seconds = timing.in_turn(
            [subject.step, bp.step], repeats=plan.repeats, budget=plan.budget, device=workload.device
        )
        peak = peak_bytes(subject.step, subject.afresh(), workload.device)
    return Row(
        workload.name,
        precision,
        label,
        workload.batch_size,
        seconds,
        bp_seconds,
        work.operations,
        peak,
        subject.gradient_bytes,
        work.products,
        bp.count().operations,
        dict(work.costs),
    )
