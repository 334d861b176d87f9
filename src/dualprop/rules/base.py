"""What every learning rule is: bound to a net at construction, it turns a batch into gradients."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Unpack

import torch
from torch import Tensor

from dualprop.arguments import Seed, check, checked
from dualprop.engines.states import ByLayer, State
from dualprop.errors import DualpropError
from dualprop.nets.devices.net import OnDevices
from dualprop.nets.devices.places import QUANTITIES, Devices
from dualprop.nets.kernels.arena import Arena
from dualprop.nets.losses import LOSSES, Loss, LossOrName
from dualprop.nets.net import Inputs, Net
from dualprop.nets.synapses import buffers_kept, has_hooks, one_step, without_hooks
from dualprop.rules.batch import BatchReader, in_order
from dualprop.rules.standing import Channels, Standing
from dualprop.rules.state import restored, saved
from dualprop.rules.step import Step

_IDEAL = nullcontext()

AnyLoss = LossOrName | Sequence[LossOrName]
"""A loss or its name, or one for each output."""


class Rule(Standing):
    """A method that adds gradients to the `.grad` of a net's parameters.

    A new rule implements `update`. Where the method's states or its prediction are not those of the feed-forward
    pass, it implements `inference` or `prediction`, too; where it makes several weight updates on a batch,
    `updates` in place of `update`. All of these get checked tensors and run under `torch.no_grad`. By `reference`
    it says which gradient it approximates.

    What a rule keeps from batch to batch it declares by `add_state`: then `state_dict` holds it, and `infer` and
    `gradients` leave it as it was. One line in `dualprop.RULES` gives a rule its name.

    Hooks of parameters are called by every rule, once a step; hooks of modules by `Backprop` alone, whose forward
    pass is `net(x)`: the others warn of them.

    A rule for chains reads `net.chain`. One that runs on other graphs says so by `graphs`, and by `cycles` if also
    on those with cycles. One that asks autograd for gradients says so by `differentiates`.

    Besides its own arguments every rule takes `states`, `drives`, `feedback_signal`, `weights`, `feedback_weights`
    and `device_seed`: the hardware that it is on, see `dualprop.devices`.

    Args:
        net: the net to train. Its parameters are read at every call; the rule holds no copies.
        loss: a name in `LOSSES` or a `Loss`; for a net with several outputs also one for each, in their order.

    Attributes:
        loss: that of the first output, a name looked up.
        losses: the loss of each output.
    """

    graphs = False
    cycles = False
    differentiates = False
    channelled: frozenset[str] = frozenset(QUANTITIES)  # what of it channels can act on
    averages = False  # whether the errors that come down to a sample are parts of the batch's mean
    calls_hooks = False  # those of modules, as net(x) does
    updates_per_batch: int | None = None  # how many `updates` yields, where that is known

    @checked
    def __init__(self, net: Net, *, loss: AnyLoss = "mse", **channels: Unpack[Channels]) -> None:
        self._check_wiring(net)
        self.net = net.ideal
        self._kept: list[str] = []  # the attributes that are state
        self.devices = self._on_devices(net, **channels)
        outputs = len(net.wiring.outputs)
        given = [loss] * outputs if isinstance(loss, str | Loss) else loss
        if len(given) != outputs:
            raise DualpropError(f"loss: {len(given)} losses, but the net has {outputs} outputs")
        self.losses: tuple[Loss, ...] = tuple(LOSSES[each] if isinstance(each, str) else each for each in given)
        self.loss: Loss = self.losses[0]
        self._batches = BatchReader(net, self.losses)
        self._hooks_seen = False
        self._arena = Arena()

    def _on_devices(self, net: Net, device_seed: int = 0, **channels: Any) -> Devices | None:
        """The devices that the net is on, if any of these channels does anything; the net becomes one on them."""
        seed = check("device_seed", device_seed, Seed)
        if not channels:
            return None
        devices = Devices(net.ideal, channels, seed)
        for name in channels:
            if name not in self.channelled and name in devices.used:
                raise DualpropError(
                    f"{name}: {type(self).__name__} has none that a channel could act on; it takes "
                    f"{', '.join(sorted(self.channelled))}"
                )
        if not devices:
            return None
        self.net = OnDevices(net.ideal, devices)
        self.add_state("devices", devices)
        return devices

    def _step(self, x: Any, *, learns: bool) -> AbstractContextManager[None]:
        """What a step on this batch is made in where the net is on devices; nothing where it is ideal."""
        if self.devices is None:
            return _IDEAL
        shared = len(in_order(x)[0]) if self.averages else 1
        return self.devices.step(self.net, learns=learns, shared=shared)

    def _check_wiring(self, net: Net) -> None:
        """Refuse a graph that this rule cannot run."""
        wiring, name = net.wiring, type(self).__name__
        if not self.graphs and not wiring.is_chain:
            raise DualpropError(f"net: {name} runs on chains, but {wiring.unlike_a_chain}")
        if wiring.cyclic and not self.cycles:
            source, target = next(edge for edge in wiring.edges if edge[0] >= edge[1])
            edge = f"{wiring.name(source)} -> {wiring.name(target)}"
            raise DualpropError(f"net: edge {edge} closes a cycle, on which {name} cannot run; rbp and dp can")

    def update(self, x: Any, y: Any) -> Step:
        """One weight update: what a new rule implements.

        Adds the batch mean of the gradient to `.grad`.

        Args:
            x: inputs, checked, shape (B, ...); a tuple of them if the net has several inputs.
            y: encoded targets, floats of the output's shape; a tuple of them if it has several outputs.

        Returns:
            What it saw.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither update nor updates")

    def updates(self, x: Any, y: Any) -> Iterator[Step]:
        """The weight updates on one batch, in order: here a single `update`.

        Args:
            x: inputs, checked, shape (B, ...).
            y: encoded targets, floats of the output's shape.

        Returns:
            An iterator that has added a gradient to `.grad` each time that it yields. It goes on once the caller's
            optimizer has made its step.
        """
        yield self.update(x, y)

    def inference(self, x: Any, y: Any) -> State:
        """The states that the next update would learn from: here the feed-forward activities, un-nudged.

        Args:
            x: inputs, checked, shape (B, ...).
            y: encoded targets, floats of the output's shape.
        """
        states = ByLayer.of(self.net.wiring, self.net.states(x))
        return State(states, states)

    def prediction(self, x: Any) -> Any:
        """What the net says without a target: here net(x), the feed-forward pass.

        Args:
            x: inputs, checked, shape (B, ...).
        """
        return self.net(x)

    def reference(self) -> Rule | None:
        """The rule whose gradient this one's approximates: that of the loss at this rule's own prediction.

        `alignment` compares with it. None, as here, where there is none.
        """
        return None

    def iterate(self, x: Inputs, y: Inputs) -> Iterator[Step]:
        """The weight updates that the method makes on one batch: one item each, gradients ready in `.grad`.

        Args:
            x: inputs, shape (B, ...), finite floats of the parameters' type; a tuple in their order if the net has
                several inputs.
            y: class indices (B,) in int64, or float targets of the output's shape; a tuple if there are several
                outputs.

        Returns:
            An iterator; the caller steps its optimizer and clears the gradients between items.

        Raises:
            DualpropError: for a batch that the net or the loss cannot take, before anything is computed.

        Example:
            >>> import torch, dualprop as dp
            >>> net = dp.nets.mlp([4, 8, 3])
            >>> rule, opt = dp.RULES["ms-dp"](net), torch.optim.SGD(net.parameters(), lr=0.1)
            >>> for step in rule.iterate(torch.randn(5, 4), torch.randint(3, (5,))):
            ...     opt.step()
            ...     opt.zero_grad()
        """
        if self.differentiates and (
            torch.is_inference_mode_enabled() or any(type(z) is Tensor and z.is_inference() for z in in_order(x))
        ):
            raise DualpropError("x: inference mode leaves no gradients; use torch.no_grad() in its place")
        x, y = self._batches.read(x, y)
        if not self.calls_hooks and not self._hooks_seen:
            self._warn_of_hooks()
        return self._steps(x, self.updates(x, y))

    def backward(self, x: Inputs, y: Inputs) -> Step:
        """Add the batch mean of the gradient to `.grad`: the first round of `iterate`, with its arguments."""
        return next(self.iterate(x, y))

    @torch.no_grad()
    def predict(self, x: Inputs) -> Any:
        """The method's own inference without a target, by which it is evaluated.

        Args:
            x: inputs, shape (B, ...).

        Returns:
            The output, shape (B, ...), without a graph.

        Raises:
            DualpropError: for inputs that the net cannot take.
            DivergenceError: if the method's inference diverges.
        """
        x = self._batches.read_inputs(x)
        with buffers_kept(self.net), one_step(self.net.synapses), self._arena.step(), self._step(x, learns=False):
            return self.prediction(x)

    @torch.no_grad()
    def infer(self, x: Inputs, y: Inputs) -> State:
        """The states that the next `backward` on this batch would learn from.

        Leaves `.grad`, the parameters and all that the rule keeps as they are.

        Args:
            x: inputs, shape (B, ...).
            y: class indices (B,) or float targets of the output's shape.

        Raises:
            DualpropError: for a batch that the net or the loss cannot take.
            DivergenceError: if the method's inference diverges.
        """
        x, y = self._batches.read(x, y)
        with self._unchanged(), one_step(self.net.synapses), self._arena.step(), self._step(x, learns=True):
            return self.inference(x, y)

    def gradients(self, x: Inputs, y: Inputs) -> dict[str, Tensor]:
        """The gradients that `backward` would add, by parameter name; changes neither `.grad` nor the rule.

        Hooks that act on an accumulated gradient are not called, for they may make a step of an optimizer.
        """
        grads = [(p, p.grad) for p in self.net.parameters()]
        with self._unchanged(), without_hooks([p for p, _ in grads], "_post_accumulate_grad_hooks"):
            try:
                for p, _ in grads:
                    p.grad = None
                self.backward(x, y)
                return {n: p.grad for n, p in self.net.named_parameters() if p.grad is not None}
            finally:
                for p, grad in grads:
                    p.grad = grad

    def compile(self) -> None:
        """Let torch.compile fuse what it can, from the next batch on: here the net's own forward pass.

        Raises:
            DualpropError: for a net on devices, whose draws no compiled product knows of.
        """
        self._check_compiles()
        self.net.compile()

    def _check_compiles(self) -> None:
        if self.devices is not None:
            raise DualpropError("compile: not with channels, which draw in every step; take one of them away")

    def add_state(self, name: str, value: Any) -> None:
        """Declare what the rule keeps from batch to batch: afterwards the attribute of this name.

        `state_dict` and `load_state_dict` take care of it, whether the rule changes it in place or assigns anew.

        Args:
            name: of the attribute.
            value: at first; a tensor, number, generator, module or optimizer, or a list or dictionary of these.

        Raises:
            DualpropError: for anything else.

        Example:
            >>> import torch, dualprop as dp
            >>> class Counting(dp.Backprop):
            ...     def __init__(self, net, *, loss="mse"):
            ...         super().__init__(net, loss=loss)
            ...         self.add_state("batches", 0)
            ...     def update(self, x, y):
            ...         self.batches += 1
            ...         return super().update(x, y)
            >>> rule = Counting(dp.nets.mlp([4, 8, 3]))
            >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
            >>> rule.state_dict()
            {'batches': 1}
        """
        saved(value)
        setattr(self, name, value)
        self._kept.append(name)

    def state_dict(self) -> dict[str, Any]:
        """A snapshot of what the rule keeps from batch to batch: tensors and numbers in plain containers."""
        return {name: saved(getattr(self, name)) for name in self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            DualpropError: if it is another rule's or another net's; the rule is then as it was.
        """
        check("state", state, Mapping[str, Any])
        if set(state) != set(self._kept):
            raise DualpropError(
                f"state: holds {sorted(map(str, state))}, but this rule keeps {sorted(self._kept)}"
            )
        before = self.state_dict()
        try:
            self._restore(state)
        except DualpropError:
            self._restore(before)
            raise

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name in self._kept:
            setattr(self, name, restored(getattr(self, name), state[name], f"state: {name}"))

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Puts back afterwards what the rule keeps, and the net's buffers."""
        before = self.state_dict()
        try:
            with buffers_kept(self.net):
                yield
        finally:
            self._restore(before)

    def _steps(self, x: Any, updates: Iterator[Step]) -> Iterator[Step]:
        """The same updates, each made under no_grad with weights read once; between them, all is the caller's."""
        known = 1 if type(self).updates is Rule.updates else self.updates_per_batch
        for number in itertools.count(1):
            lasting = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
            with (
                lasting,
                torch.no_grad(),
                one_step(self.net.synapses),
                self._arena.step(),
                self._step(x, learns=True),
            ):
                step = next(updates, None)  # whose gradients another step may add to, outside of inference mode
            if step is None:
                return
            yield step
            if number == known:
                return

    def value(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """The batch's mean loss, summed over the outputs.

        Args:
            outputs: of the net, in their order.
            targets: encoded, of the same shapes.
        """
        values = [loss.value(z, y).mean() for loss, z, y in zip(self.losses, outputs, targets, strict=True)]
        return values[0] if len(values) == 1 else functools.reduce(torch.add, values)

    def _warn_of_hooks(self) -> None:
        """Say once which module has hooks that this rule does not call once a batch."""
        net = self.net
        for module in (net, *net.stack, *net.synapses):
            if has_hooks(module):
                name = next(name for name, other in net.named_modules() if other is module)
                at = f"{type(module).__name__}{f' ({name})' if name else ''}"
                self._hooks_seen = True
                told = f"net: {at} has hooks, which back-propagation calls once a batch"
                warnings.warn(f"{told} and {type(self).__name__} does not", stacklevel=4)
                return
