"""Dual propagation: dyadic neurons, one inference phase, closed-form block updates.

References:
    Høier, Staudt, Zach, *Dual Propagation: Accelerating Contrastive Hebbian Learning with Dyadic Neurons*,
    ICML 2023. Høier, Zach, *Two Tales of Single-Phase Contrastive Hebbian Learning*, ICML 2024 (DP-transpose).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from dualprop.arguments import Count, PerLayer, Portion, Positive, checked, per_layer
from dualprop.engines.dyads.blocks import Blocks, Task
from dualprop.engines.dyads.damped import Damped
from dualprop.engines.dyads.inference import LASTING, NOTHING, STATES, Inference, Names
from dualprop.engines.dyads.schedules import Schedule, Update, parse
from dualprop.engines.dyads.states import DyadicState, Lasting, Nudge, dyad
from dualprop.engines.slots import Ages, Slots
from dualprop.errors import DualpropError
from dualprop.nets.net import Inputs, Net
from dualprop.rules.base import AnyLoss, Rule
from dualprop.rules.batch import in_order
from dualprop.rules.recurrent_backprop import of_net
from dualprop.rules.standing import Channels
from dualprop.rules.step import Step


class DualProp(Rule):
    """Dual propagation with every variant as a free combination of its settings.

    With drives a_k = A_k(z̄_{k-1}) and feedback d_k = A_{k+1}^T (z_{k+1}^+ - z_{k+1}^-), layers are updated in
    closed form, z_k^+ = f_k(a_k + α r_k d_k) and z_k^- = f_k(a_k - ᾱ r_k d_k) with r_k = β_k/β_{k+1}, and the
    weights by the local rule ∂L/∂W_{k-1} = (1/β_k)(z_k^- - z_k^+) z̄_{k-1}^T, averaged over the batch.

    Args:
        net: the net to train; with feedback="kolen-pollack" its own weights B carry the feedback.
        loss: a name in `LOSSES` or a `Loss`. "mse" nudges exactly and needs (1-α)β_L < 1.
        alpha: α in [0, 1]. ½ makes the gradient's error second order in β, anything else first.
        beta: the strength of the nudges, positive: one number, or one for each layer 1..L.
        schedule: the order of updates, a `Schedule` or a word for one: sweep:N, forward:N, backward:N, even-odd:N,
            odd-even:N, parallel:TICKS, random:UPDATES, or an order of one's own as random:[1,3,2] or
            order:[2,[1,3]]:N. A warning names the layers that cannot learn in it.
        transpose: DP-transpose, z̄ = ᾱ z^+ + α z^-: stable under repeated sweeps for every α. Its authors swap the
            nudges in place of the mean: their α is 1 - ours.
        damped: damped DP, z_k^± = f_k((a_k + L_k z_k^± ± {α, ᾱ} r_k d_k)/(1 + L_k)), L_k = max(0, ‖W_k‖² - 1)/2
            by spectral norms anew for every batch: repeated passes settle wherever the objective is bounded, which
            at α below ½ takes a small β. For potentials that project and feedback by Wᵀ.
        lazy: start from the states that the batch before left, not from zero. States belong to the slots of
            the batch: sample i starts from what the last batch of more than i samples left in slot i. A
            smaller batch uses the first slots and leaves the others; new slots start at zero.
        rounds: weight updates per batch; later rounds start from the states that the round before left.

    Raises:
        DualpropError: for a value out of range, or a schedule or loss that does not fit the net; also for an order
            in which no layer can learn.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> rule = dp.DualProp(net, loss="mse", alpha=0.5, beta=0.1)
        >>> x, y = torch.randn(5, 4), torch.randint(3, (5,))
        >>> step = rule.backward(x, y)
        >>> state = rule.infer(x, y)
        >>> state.mean[1].shape, state.difference[2].shape
        (torch.Size([5, 8]), torch.Size([5, 3]))
    """

    graphs = True
    cycles = True

    generator: torch.Generator
    means: Slots
    differences: Slots
    ages: Ages

    @checked
    def __init__(
        self,
        net: Net,
        *,
        loss: AnyLoss = "mse",
        alpha: Portion = 0.5,
        beta: PerLayer[Positive] = 1.0,
        schedule: Schedule | str = "sweep",
        transpose: bool = False,
        damped: bool = False,
        lazy: bool = False,
        rounds: Count = 1,
        **channels: Unpack[Channels],
    ) -> None:
        super().__init__(net, loss=loss, **channels)
        depth = len(net)
        self.nudge = Nudge(alpha, per_layer("beta", beta, depth), transpose)
        for k, each in zip(net.wiring.outputs, self.losses, strict=True):
            each.check(net.stack[k - 1].potential, self.nudge.at(k)[1])
        self.schedule = parse(schedule) if isinstance(schedule, str) else schedule
        self.schedule.fit(net.wiring, rounds, lazy)
        if net.wiring.cyclic and not self.schedule.tolerance:
            warnings.warn(
                f"schedule={self.schedule!r}: nothing says that the states of a net with cycles settle in "
                "it; Sweep(200, tolerance=1e-6), or sweep:200:1e-6, goes on until they do",
                stacklevel=2,
            )
        self.damped = damped
        if damped:
            _check_damped(net)
        self.lazy, self.rounds = lazy, rounds
        self.updates_per_batch = rounds
        self.add_state("generator", torch.Generator().manual_seed(self.schedule.seed))
        if lazy:
            self.add_state("means", Slots(net))
            self.add_state("differences", Slots(net))
            self.add_state("ages", Ages())
        self._idle = Idle()
        self._fixed: tuple[Update, ...] | None = None

    def reference(self) -> Rule:
        """Back-propagation, and through the free equilibrium on a net with cycles."""
        return of_net(self.net, self.losses)

    @override
    def plain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super().plain({**settings, "schedule": self.schedule.at_depth(len(self.net)).word})

    def compile(self) -> None:
        """Let torch.compile make one kernel of a hidden layer's block update, from the next batch on."""
        self._check_compiles()
        self._idle = Idle(torch.compile(dyad, dynamic=True))

    if TYPE_CHECKING:

        def infer(self, x: Inputs, y: Inputs) -> DyadicState:
            """See `Rule.infer`."""

    def inference(self, x: Inputs, y: Inputs) -> DyadicState:
        """The dyadic states after the schedule has run once; arguments as in `Rule.inference`."""
        inputs, targets = in_order(x), in_order(y)
        inference = self._taken()
        try:
            self._run(inference, inputs, targets, self._start(inputs), learn=False, keep=STATES)
            return inference.state()
        finally:
            self._put_back(inference)

    def updates(self, x: Inputs, y: Inputs) -> Iterator[Step]:
        """An inference and an update for each round; arguments as in `Rule.updates`."""
        inputs, targets = in_order(x), in_order(y)
        start = self._start(inputs)
        for left in reversed(range(self.rounds)):
            keep = LASTING if self.lazy or left > 0 else NOTHING
            inference = self._taken()
            try:
                measures = self._run(inference, inputs, targets, start, learn=True, keep=keep)
                outputs, products = inference.outputs, inference.products
                start = inference.lasting() if keep else None
                if self.lazy and start is not None:
                    self.means.keep([mean for mean, _ in start])
                    self.differences.keep([torch.zeros_like(mean) if d is None else d for mean, d in start])
                    self.ages.add(inference.updates, inputs[0].shape[0])
            finally:
                self._put_back(inference)
            loss = partial(self.value, outputs, targets)
            yield Step.later(loss, self.net.packed(outputs), products, measures)

    def _taken(self) -> Inference:
        """An inference that nobody else uses meanwhile: one that is idle, if there is any."""
        idle = self._idle
        inference = idle.pop() if idle else None
        if inference is None or not inference.fits or inference.nudge is not self.nudge:
            damping, blocks = self.schedule.damping, Damped if self.damped else Blocks
            inference = Inference(self.net, self.nudge, damping=damping, dyad=idle.dyad, blocks=blocks)
        return inference

    def _put_back(self, inference: Inference) -> None:
        """It waits for the next batch."""
        inference.end()
        self._idle.append(inference)

    def _run(
        self,
        inference: Inference,
        inputs: Sequence[Tensor],
        targets: Sequence[Tensor],
        start: Lasting | None,
        *,
        learn: bool,
        keep: Names,
    ) -> dict[str, float]:
        """Run the schedule once, and say what it measured on its way."""
        wiring, schedule = self.net.wiring, self.schedule
        inference.begin(inputs, dict(zip(wiring.outputs, map(Task, self.losses, targets), strict=True)), start)
        if schedule.tolerance:
            rounds = schedule.rounds(wiring, self.generator)
            steps, residual = inference.settle(rounds, schedule.tolerance, learn=learn, keep=keep)
            return {"steps": steps, "residual": residual}
        inference.run(self._order(inputs[0].shape[0]), learn=learn, keep=keep)
        return {}

    def _order(self, samples: int) -> tuple[Update, ...]:
        """The updates of one inference; worked out once where nothing is drawn for them and no state is kept."""
        if self._fixed is not None:
            return self._fixed
        before = self.generator.get_state()
        done = self.ages.youngest(samples) if self.lazy else 0
        order = tuple(self.schedule.plan(self.net.wiring, self.generator, done))
        if not self.lazy and torch.equal(before, self.generator.get_state()):
            self._fixed = order
        return order

    def _start(self, inputs: Sequence[Tensor]) -> Lasting | None:
        """Where the states of a batch start: lazily where the last batch left them, otherwise at zero."""
        if not self.lazy or not self.means.kept:
            return None
        return list(zip(self.means.start(*inputs), self.differences.start(*inputs), strict=True))


def _check_damped(net: Net) -> None:
    """Refuse a net that damped DP knows no L_k of, or that its L_k does not settle.

    Raises:
        DualpropError: naming layer or edge.
    """
    if net.feedback != "symmetric":
        raise DualpropError(f"damped: the net's feedback is {net.feedback}, but it is settled by Wᵀ alone")
    for k, layer in enumerate(net.stack, 1):
        if net.wiring.out_of[k] and not layer.potential.projects:
            raise DualpropError(
                f"damped: the potential of {net.wiring.name(k)}, {layer.potential}, is no projection; "
                "use for example relu or hard-sigmoid"
            )
    for e, synapse in enumerate(net.synapses):
        try:
            synapse.core  # noqa: B018 - or an error
        except DualpropError as error:
            raise DualpropError(f"damped: edge {net.wiring.arrow(e)}: {error}") from None


class Idle(list[Inference]):
    """Inferences of a rule that wait for the next batch; a copy of the rule begins with none.

    Args:
        dyad: how theirs compute mean and difference.
    """

    def __init__(self, dyad: Callable[..., tuple[Tensor, Tensor]] = dyad) -> None:
        super().__init__()
        self.dyad = dyad

    def __deepcopy__(self, memo: object) -> Idle:
        return Idle(self.dyad)

    def __reduce__(self) -> tuple[type[Idle], tuple[()]]:
        return Idle, ()  # a compiled function cannot be pickled; what is loaded is as it was before `compile`
