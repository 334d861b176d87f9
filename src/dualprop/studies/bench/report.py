"""What was measured, as tables and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualprop.errors import CheckpointError
from dualprop.runs.documents import MEASURED, read_json
from dualprop.studies import _costs
from dualprop.studies._machine import machine
from dualprop.studies._table import Table, show
from dualprop.studies.bench.ceilings import PRODUCT, Ceiling
from dualprop.studies.bench.timing import Quartiles, ratios

COLUMNS = (
    "rule",
    "ms/step",
    "images/s",
    "÷ bp",
    "quartiles",
    "n",
    "products",
    "GFLOP",
    "÷ bp/GFLOP",
    "ceil. %",
    "peak MB",
)
ENOUGH = 10
"""Pairs of steps that a row should have."""

NOTES = (
    "A step is everything between two batches: inference, gradients, SGD with momentum and weight decay, clearing "
    "the gradients; ms-dp's has three weight updates.",
    "÷ bp: median and quartiles of n ratios of a step's time to that of the bp step beside it, taken in turn; the "
    "row bp is bp beside another bp: the noise of the method. Milliseconds of different rows do not compare, for "
    "the machine's clock wanders; ratios do.",
    "Products: those of a batch with the weights of a layer that a step makes, for drives, feedback and weight "
    "gradients; one with several copies of the batch (two signs, points on a circle, a complex one counted twice) "
    "is as many. GFLOP: in these products. ÷ bp/GFLOP: the time for each of them, beside bp's.",
    "Ceil. %: these operations by the step's time and by the fastest matrix product of that precision.",
    "Peak MB: the most that the first two steps of a new rule hold in tensors at once, from the allocator's "
    "records: states, gradients, oneDNN's own buffers and what the rule keeps from batch to batch, not weights "
    "and momentum. Gradients are freed before a step begins, so they belong to its peak.",
)
"""What the columns mean."""


@dataclass(frozen=True)
class Row:
    """One subject on one net in one precision.

    Args:
        net, precision, rule: names.
        batch_size: samples in a step.
        seconds: of every step.
        bp_seconds: of the bp step beside each.
        operations: floating-point operations in a step's products.
        peak_bytes: the most that the first steps of a new rule hold beyond weights and momentum; None where the
            device does not say.
        gradient_bytes: the size of all gradients together.
        products: matrix products in a step.
        bp_operations: as `operations`, of the bp step.
        costs: what hardware would pay by sample, where that was counted; see `dualprop.devices.Trace.by_sample`.
    """

    net: str
    precision: str
    rule: str
    batch_size: int
    seconds: list[float]
    bp_seconds: list[float]
    operations: int
    peak_bytes: int | None
    gradient_bytes: int
    products: float
    bp_operations: int
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def ratio_per_operation(self) -> float:
        """The time that an operation takes, by that of bp's."""
        return self.ratio.median * self.bp_operations / self.operations

    @property
    def step(self) -> Quartiles:
        """Seconds per step."""
        return Quartiles.of(self.seconds)

    @property
    def ratio(self) -> Quartiles:
        """The step's time by that of the bp step beside it."""
        return Quartiles.of(ratios(self.seconds, self.bp_seconds))

    def cells(self, ceiling: float) -> tuple[str, ...]:
        """Words under `COLUMNS`.

        Args:
            ceiling: the fastest matrix product of this precision, in GFLOP/s.
        """
        step, ratio, gflop = self.step.median, self.ratio, self.operations / 1e9
        return (
            self.rule,
            _short(1e3 * step),
            f"{self.batch_size / step:,.0f}",
            _short(ratio.median, 2),
            f"{_short(ratio.low, 2)}-{_short(ratio.high, 2)}",
            str(len(self.seconds)),
            f"{self.products:.4g}",
            _short(gflop),
            _short(self.ratio_per_operation, 2),
            f"{100 * gflop / step / ceiling:.0f}",
            "" if self.peak_bytes is None else _short(self.peak_bytes / 1e6, 2),
        )


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured, and on what.

    Args:
        environment: as `dualprop.runs.environment.environment` gives it.
        plan: what was asked for.
        ceilings: of the machine.
        rows: in the order they were measured.
        left_out: a line for each row that could not be.
    """

    environment: Mapping[str, Any]
    plan: Mapping[str, Any]
    ceilings: list[Ceiling]
    rows: list[Row] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)

    def ceiling(self, precision: str) -> float:
        """The fastest matrix product of that precision, in GFLOP/s."""
        return max(c.rate for c in self.ceilings if c.precision == precision and c.work.startswith(PRODUCT))

    def tables(self) -> dict[tuple[str, str], list[Row]]:
        """The rows by net and precision."""
        tables: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            tables.setdefault((row.net, row.precision), []).append(row)
        return tables

    def machine(self) -> str:
        """One line that says what it was measured on, and when."""
        return f"{machine(self.environment)}, {self.environment['date'][:10]}"

    def shown(self) -> list[Table]:
        """The ceilings, then a table for each net and precision."""
        rates = [(c.work, c.precision, f"{c.rate:,.0f} {c.unit}") for c in self.ceilings]
        return [
            Table("What the machine can do", ("ceiling", "precision", "rate"), rates),
            *(
                Table(
                    f"{net}, batch {rows[0].batch_size}, {precision}",
                    COLUMNS,
                    [row.cells(self.ceiling(precision)) for row in rows],
                )
                for (net, precision), rows in self.tables().items()
            ),
            *(
                Table(
                    f"{net}, {precision}: what hardware would pay",
                    ("rule", *paid[0][1]),
                    [(rule, *words.values()) for rule, words in paid],
                )
                for (net, precision), rows in self.tables().items()
                if (paid := [(row.rule, _costs.cells(row.costs)) for row in rows if row.costs])
            ),
        ]

    def remarks(self) -> list[str]:
        """What a reader is to know before trusting the numbers, and comparisons of rows other than with bp."""
        remarks = list(self.left_out)
        fewest = min((len(row.seconds) for row in self.rows), default=0)
        if fewest < ENOUGH:
            remarks.append(f"Rows of fewer than {ENOUGH} pairs (the fewest: {fewest}) say little.")
        for (net, precision), rows in self.tables().items():
            texts = _times({row.rule: row for row in rows})
            texts += _memory({row.rule: row for row in rows if row.peak_bytes is not None})
            remarks += [f"{net}, {precision}: {text}" for text in texts]
        if any(row.costs for row in self.rows):
            pairs = ", ".join(f"{name}={value:g}" for name, value in (self.plan.get("energy") or {}).items())
            remarks += [_costs.NOTE, f"Energy, in pJ: {pairs or 'the defaults'}."]
        return remarks

    def markdown(self) -> str:
        """Machine, ceilings and tables in Markdown."""
        parts = [f"Measured on {self.machine()}."]
        for table in self.shown():
            parts += [f"**{table.title}**", table.markdown()]
        parts.append("\n".join(f"- {line}" for line in (*self.remarks(), *NOTES)))
        return "\n\n".join(parts) + "\n"

    def print(self) -> None:
        """Machine, ceilings and tables in a terminal."""
        show(f"Measured on {self.machine()}.", *self.shown(), remarks=(*self.remarks(), *NOTES))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them: every time that was taken, and what follows from them."""
        return {
            "environment": dict(self.environment),
            "plan": dict(self.plan),
            "ceilings": [{**dataclasses.asdict(c), "rate": c.rate} for c in self.ceilings],
            "left_out": list(self.left_out),
            "rows": [
                {
                    **dataclasses.asdict(row),
                    "n": len(row.seconds),
                    "step_seconds": dataclasses.asdict(row.step),
                    "ratio": dataclasses.asdict(row.ratio),
                    "ratio_per_operation": row.ratio_per_operation,
                    "images_per_second": row.batch_size / row.step.median,
                    "fraction_of_ceiling": row.operations / row.step.median / 1e9 / self.ceiling(row.precision),
                }
                for row in self.rows
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Measurements:
        """What `as_dict` gave; what follows from the times is computed again."""
        return cls(
            values["environment"],
            values["plan"],
            [_made(Ceiling, c) for c in values["ceilings"]],
            [_made(Row, row) for row in values["rows"]],
            list(values["left_out"]),
        )

    @classmethod
    def read(cls, path: Path) -> Measurements:
        """What was written to a JSON file.

        Raises:
            CheckpointError: if it is missing or damaged, or holds something else.
        """
        try:
            return cls.from_dict(read_json(path, MEASURED))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: not the numbers of a bench ({error!r})") from None


def _made(kind: Any, values: Mapping[str, Any]) -> Any:
    fields = dataclasses.fields(kind)
    given = {f.name for f in fields if f.name in values or f.default_factory is dataclasses.MISSING}
    return kind(**{name: values[name] for name in given})


def _short(number: float, decimals: int = 0) -> str:
    """Three digits or a few more, without an exponent.

    Args:
        number: at least 0.
        decimals: of numbers below 10, if they are to line up; else as many as they need.
    """
    if number >= 100:
        return f"{number:.0f}"
    if decimals:
        return f"{number:.{decimals - (number >= 10)}f}"
    return f"{number:.3g}"


def _times(rows: Mapping[str, Row]) -> list[str]:
    """Comparisons of time besides those with bp."""
    texts = []
    if "bp compiled" in rows and rows["bp compiled"].ratio.median < 1:
        texts.append(
            f"bp compiled takes {rows['bp compiled'].ratio.median:.2f} of bp's time and is the one to beat"
        )
    if {"dp", "convert"} <= rows.keys():
        quotient = rows["dp"].ratio.median / rows["convert"].ratio.median
        texts.append(f"dp takes {quotient:.2f} of convert's time")
    return texts


def _memory(rows: Mapping[str, Row]) -> list[str]:
    """Comparisons of peak memory, where both sides were measured."""

    def peak(rule: str) -> int:
        return rows[rule].peak_bytes or 0

    texts = []
    if {"bp", "dp"} <= rows.keys() and peak("bp"):
        texts.append(f"peak memory of dp is {peak('dp') / peak('bp'):.2f} of bp's")
    for rule in ("bp", "dp"):
        if {rule, f"{rule}-fused"} <= rows.keys():
            saved, size = peak(rule) - peak(f"{rule}-fused"), rows[rule].gradient_bytes
            texts.append(
                f"{rule}-fused peaks {saved / 1e6:.2f} MB below {rule}; gradients are {size / 1e6:.2f} MB"
            )
    return texts
