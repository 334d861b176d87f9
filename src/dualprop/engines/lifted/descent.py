"""Descent on the lifted objective, sample by sample: backtracking, and steps as long as the last secant says.

References:
    Barzilai, Borwein, *Two-Point Step Size Gradient Methods*, IMA J. Numer. Anal. 1988. Hager, Zhang, *A New
    Conjugate Gradient Method with Guaranteed Descent and an Efficient Line Search*, SIAM J. Optim. 2005 (what to
    accept within rounding). Bauschke, Bolte, Teboulle, *A Descent Lemma Beyond Lipschitz Gradient Continuity*,
    Math. Oper. Res. 2017 (Bregman proximal gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dualprop.engines.lifted.objective import Level, Lifted, Point, column
from dualprop.errors import DivergenceError

_ENOUGH = 1e-3  # of the fall that the slope promises
_SETTLES = 0.9  # of the slope may be left, where the fall is within rounding
_GROWTH = 4.0  # of θ from one step to the next, at most
_MISSES = 10  # steps in a row may be refused, or gain nothing beyond rounding
_MOST = 10.0  # what θ may be divided by at once
_RISEN = 10.0  # times the feed-forward loss (and one): an objective that is there, unsettled, is running away
_FAR = 1e6  # times the size of the feed-forward drives: states that are there have run away

Watch = Callable[[Tensor, Tensor, Point, Point], None]


class Minimum(NamedTuple):
    """Where the descent has stopped, for every sample.

    Attributes:
        levels: the states of layers 1..L.
        outputs: f(a) of the output layers in the feed-forward pass, from which the descent has started.
        objective: E there, shape (B,), in double precision.
        residual: see `Point`.
        iterations: steps that were tried, shape (B,).
    """

    levels: list[Level]
    outputs: list[Tensor]
    objective: Tensor
    residual: Tensor
    iterations: Tensor


class _Samples(NamedTuple):
    """Those that are still descending, one row each.

    Attributes:
        rows: where in the batch they are.
        rest: what the inputs drive.
        y: encoded targets, for each output.
        point: where they are.
        theta: θ of the next step; 0 asks for another Δ, without moving.
        misses: how many steps in a row were refused, or gained nothing beyond rounding.
        apart: whether each z_k moves alone.
        stuck: whether no step descends any more.
    """

    rows: Tensor
    rest: list[Tensor]
    y: list[Tensor]
    point: Point
    theta: Tensor
    misses: Tensor
    apart: Tensor
    stuck: Tensor

    @classmethod
    def of(cls, rest: list[Tensor], y: list[Tensor], point: Point) -> _Samples:
        """A whole batch, before its first step."""
        rows = torch.arange(len(rest[0]), device=rest[0].device)
        no = torch.zeros_like(rows, dtype=torch.bool)
        return cls(rows, rest, y, point, torch.ones_like(point.residual), torch.zeros_like(rows), no, no)


class Descent:
    """Minimises the lifted objective E of each sample by itself, from the feed-forward pass on.

    The nudges step to e + θΔ, all layers at once, Δ being the direction of steepest descent that `Lifted` says. θ
    starts at 1 and is cut until E falls by a part of what its slope promises; near the minimum, where that is
    within the rounding of E, the slope itself must fall. The next θ is where the secant of the slope is zero.

    Where f has a kink, the slope may promise what no θ keeps. Then the sample takes a step with each z_k *apart*,
    the layers above staying where they are: u_k + θΔ_k, with a_k held as it was. This is a Bregman proximal
    gradient step in all z_k at once, and E is smooth in z whatever f is, so that some θ in (0, 1] descends. Only a
    max-pool, linearised at its winners, makes E piecewise smooth in z: a sample may rest where two neurons tie.

    A sample is done when its residual is below the tolerance or when no step descends within rounding.

    Args:
        lifted: the objective.
        tolerance: for the residual; never less than the rounding of a product.
        max_iterations: steps tried for a sample, at most.
        watch: called after each iteration with the batch's numbers of the samples that are still descending, which
            of them took the step, where they were and where the step led.
    """

    def __init__(self, lifted: Lifted, tolerance: float, max_iterations: int, watch: Watch | None = None) -> None:
        self.lifted, self.max_iterations, self.watch = lifted, max_iterations, watch
        self.tolerance = max(tolerance, torch.finfo(lifted.product_dtype).eps)

    def run(self, inputs: Mapping[int, Tensor], y: Sequence[Tensor]) -> Minimum:
        """Descend on one batch.

        Args:
            inputs: by their numbers, each of shape (B, ...).
            y: encoded targets for each output, of its shape.

        Raises:
            DivergenceError: if E has no minimum at s = -1, so that the states run away, or seems to have none:
                ten times the feed-forward loss and unsettled at the last iteration.
        """
        rest = self.lifted.rest(inputs)
        start = self.lifted.at(rest, y, lambda _, a: torch.zeros_like(a))
        outputs = [self.lifted.potentials[k - 1](start.drives[k - 1]) for k in self.lifted.net.wiring.outputs]
        far = [_FAR * (1 + float(_norms(a).max())) for a in start.drives]
        left = _Samples.of(rest, list(y), start)
        nudges = [torch.empty_like(e) for e in start.nudges]
        objective, residual = torch.empty_like(start.objective), torch.empty_like(start.residual)
        iterations = torch.empty_like(left.rows)
        for iteration in range(self.max_iterations + 1):
            done = left.stuck | (left.point.residual <= self.tolerance)
            if iteration == self.max_iterations:
                if self.lifted.sign < 0:
                    _check_risen(left, ~done, start, iteration)
                done |= True
            if bool(done.any()):
                rows = left.rows[done]
                for whole, part in zip(nudges, left.point.nudges, strict=True):
                    whole[rows] = part[done]
                objective[rows], residual[rows] = left.point.objective[done], left.point.residual[done]
                iterations[rows] = iteration
                left = _each(lambda tensor, kept=~done: tensor[kept], left)
            if not len(left.rows):
                break
            left = self._step(left)
            if self.lifted.sign < 0:
                _check(left.point.reach, far, iteration + 1)
        levels = self.lifted.read(self.lifted.climb(rest, lambda k, _: nudges[k - 1]))
        return Minimum(levels, outputs, objective, residual, iterations)

    def _step(self, at: _Samples) -> _Samples:
        """Try one step for every sample, and take it where it descends."""
        point, lifted = at.point, self.lifted
        apart = at.apart if bool(at.apart.any()) else None
        trial = lifted.at(at.rest, at.y, point.along(at.theta, apart), apart)
        left_over = torch.where(point.slope < 0, lifted.slope(point.steps, trial.bent) / point.slope, 0.0)
        falls = trial.objective <= point.objective + _ENOUGH * at.theta * point.slope
        settles = (trial.objective <= point.objective + point.rounding) & (left_over.abs() <= _SETTLES)
        asked = at.theta == 0
        taken = falls | settles | asked
        if self.watch is not None:
            self.watch(at.rows, taken, point, trial)
        secant = (1 - left_over).nan_to_num(_MOST, _MOST, _MOST).to(at.theta)
        theta = at.theta / torch.where(taken, secant.clamp(min=1 / _GROWTH), secant.clamp(2, _MOST))
        gains = (point.objective - trial.objective > point.rounding) | (trial.slope > _SETTLES * point.slope)
        misses = torch.where(taken & gains, 0, at.misses + 1)
        lost = misses > _MISSES
        stuck = lost & (at.apart | (-point.slope <= point.rounding))
        turned = lost & ~stuck | at.apart & taken & ~asked
        return at._replace(
            point=trial if bool(taken.all()) else _each(partial(_where, taken), trial, point),
            theta=theta.masked_fill(asked, 1.0).masked_fill(turned, 0.0),
            misses=misses.masked_fill(turned, 0),
            apart=at.apart ^ turned,
            stuck=stuck,
        )


def _check(reach: Tensor, far: list[float], iteration: int) -> None:
    """Stop if the states of a layer are too far from where its drive alone would bring them."""
    for k, limit in enumerate(far, 1):
        if not bool((reach[:, k - 1] <= limit).all()):
            raise DivergenceError(
                f"beta: the objective at alpha=0 is unbounded, the states of layer {k} ran away at "
                f"iteration {iteration}; beta must be smaller"
            )


def _check_risen(left: _Samples, unsettled: Tensor, start: Point, iteration: int) -> None:
    """Stop if, at the last iteration, an unsettled sample is far above its feed-forward loss."""
    loss = -start.objective[left.rows]
    risen = unsettled & (-left.point.objective > _RISEN * (1 + loss.abs()))
    if bool(risen.any()):
        k = 1 + int(left.point.reach[risen].sum(0).argmax())
        most = float((-left.point.objective)[risen].max())
        raise DivergenceError(
            f"beta: the objective at alpha=0 seems unbounded, {most:.3g} and rising at iteration {iteration}, "
            f"most of all by layer {k}; beta must be smaller (or max_iterations larger)"
        )


def _each(f: Callable[..., Tensor], *trees: Any) -> Any:
    """f of every tensor in nested lists and named tuples, of the first of them with the same one of the others."""
    first = trees[0]
    if isinstance(first, Tensor):
        return f(*trees)
    parts: list[Any] = [_each(f, *parts) for parts in zip(*trees, strict=True)]
    return parts if isinstance(first, list) else type(first)(*parts)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(column(rows, new), new, old)


def _norms(a: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return norms
