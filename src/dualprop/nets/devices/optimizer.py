"""Stochastic gradient descent on weights that are kept on devices.

References:
    Gokmen, Vlasov, *Acceleration of Deep Neural Network Training with Resistive Cross-Point Devices*, Frontiers in
    Neuroscience 2016.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dualprop.arguments import Count, Positive, Seed, checked
from dualprop.nets.devices.presets import PRESETS
from dualprop.nets.devices.pulsed import PulsedDevice
from dualprop.nets.devices.responses import Sizes


class _Array:
    """The devices of one tensor of weights, flat.

    Args:
        device: what they have in common.
        count: how many.
        seed: of what differs.
        like: a tensor of their type, on their device.
    """

    def __init__(self, device: PulsedDevice, count: int, seed: str, like: Tensor) -> None:
        self.device = device

        def spread(what: str) -> Tensor:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {what}".encode()))
            return torch.randn(count, generator=generator).to(like)

        d = device
        size = (d.dw_min * (1 + d.dw_min_dtod * spread("dw_min"))).abs()
        beta = d.up_down + d.up_down_dtod * spread("up_down")
        self.up, self.down = (size * (1 + beta)).clamp_(min=0), (size * (1 - beta)).clamp_(min=0)
        self.high = (d.w_max * (1 + d.w_max_dtod * spread("w_max"))).clamp_(min=d.w_max / 100)
        self.low = (d.w_min * (1 + d.w_min_dtod * spread("w_min"))).clamp_(max=d.w_min / 100)
        self.sizes: Sizes = d.response.of(self.low, self.high, spread)

    def pulse(self, w: Tensor, wanted: Tensor, most: int, generator: torch.Generator) -> Tensor:
        """Move weights by pulses that are to make a wanted change; in place.

        Args:
            w: the weights, flat.
            wanted: by how much.
            most: pulses for a device, at most.
            generator: of what is drawn.

        Returns:
            The numbers of the devices that got a pulse.
        """
        d = self.device
        number = (wanted / d.dw_min).abs_()
        number = torch.floor(number.add_(torch.rand(number.shape, generator=generator).to(w))).clamp_(max=most)
        left: Tensor = number.nonzero().flatten()
        pulsed = left
        while left.numel():
            here, rises = w[left], wanted[left] > 0
            up, down = self.sizes(here, left)
            xi = torch.randn(left.shape, generator=generator).to(w)
            if d.additive:
                up, down = up + d.dw_min_std * xi, down + d.dw_min_std * xi
            else:
                up, down = up * (1 + d.dw_min_std * xi), down * (1 + d.dw_min_std * xi)
            moved = here + torch.where(rises, self.up[left] * up, -self.down[left] * down)
            w[left] = torch.minimum(torch.maximum(moved, self.low[left]), self.high[left])
            number[left] -= 1
            left = left[number[left] > 0]
        return pulsed

    def put(self, w: Tensor, generator: torch.Generator) -> None:
        """Weights as devices can hold them; in place."""
        torch.minimum(torch.maximum(w, self.low), self.high, out=w)
        if self.device.on_grid:
            number = (w - self.low) / self.device.dw_min
            number = torch.floor(number + torch.rand(w.shape, generator=generator).to(w))
            w.copy_(torch.minimum(self.low + number * self.device.dw_min, self.high))


class PulsedSGD(torch.optim.Optimizer):
    """Stochastic gradient descent on devices: the change -lr g of every weight is made by pulses.

    Tensors of two dimensions and more are on devices; biases and the like are numbers, and get -lr g.

    Args:
        params: parameters, or groups of them.
        lr: learning rate, positive.
        device: a `PulsedDevice`, or a name in `dualprop.devices.PRESETS`.
        full_scale: the weight that 1 on a device stands for; None: 1/0.6 of each tensor's largest initial one.
        pulses: for a device in a step, at most.
        seed: of the devices, and of what is drawn.

    Raises:
        DualpropError: for a value out of range, or a device that there is not.

    Example:
        >>> import torch, dualprop as dp
        >>> net = dp.nets.mlp([4, 8, 3])
        >>> rule, opt = dp.DualProp(net), dp.devices.PulsedSGD(net.parameters(), lr=0.1, device="EcRam")
        >>> step = rule.backward(torch.randn(5, 4), torch.randint(3, (5,)))
        >>> opt.step()
    """

    @checked
    def __init__(
        self,
        params: Any,
        lr: Positive = 0.1,
        *,
        device: PulsedDevice | str = "ReRamES",
        full_scale: Positive | None = None,
        pulses: Count = 31,
        seed: Seed = 0,
    ) -> None:
        self.device = PRESETS[device] if isinstance(device, str) else device
        self.seed, self.pulses, self.full_scale = seed, pulses, full_scale
        self._arrays: dict[Tensor, _Array] = {}
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Put further weights on devices.

        Args:
            param_group: as of PyTorch's optimizers.
        """
        super().add_param_group(param_group)
        for p in (p for p in self.param_groups[-1]["params"] if p.ndim > 1):
            most = float(p.abs().max())
            scale = self.full_scale or (most / 0.6 if most else 1.0)
            self.state[p] = {"step": torch.zeros(()), "scale": torch.tensor(scale)}
            self._put(p)

    def _array(self, p: Tensor) -> _Array:
        if p not in self._arrays:
            self._arrays[p] = _Array(self.device, p.numel(), f"{self.seed} {self._number(p)}", p.detach())
        return self._arrays[p]

    def _number(self, p: Tensor) -> int:
        every = [other for group in self.param_groups for other in group["params"]]
        return next(n for n, other in enumerate(every) if other is p)

    def _generator(self, p: Tensor) -> torch.Generator:
        """Of one step of one tensor: with the number of the step alone the same one is made again."""
        word = f"{self.seed} {self._number(p)} step {int(self.state[p]['step'])}"
        return torch.Generator().manual_seed(zlib.crc32(word.encode()))

    def _put(self, p: Tensor) -> None:
        state = self.state[p]
        w = (p.detach() / state["scale"].to(p)).flatten()
        self._array(p).put(w, self._generator(p))
        self._write(p, w, torch.arange(w.numel(), device=w.device), self._generator(p))

    def _write(self, p: Tensor, w: Tensor, pulsed: Tensor, generator: torch.Generator) -> None:
        """Weights on devices to where they are read."""
        state, std = self.state[p], self.device.write_noise_std * self.device.dw_min
        if std:
            held = state.get("held")
            state["held"] = w.view_as(p).clone()
            read = (p.detach() / state["scale"].to(p)).flatten() if held is not None else w.clone()
            read[pulsed] = w[pulsed] + std * torch.randn(pulsed.shape, generator=generator).to(w)
            w = read
        p.copy_((w * state["scale"].to(p)).view_as(p))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Pulse every weight that has a gradient.

        Args:
            closure: makes the gradients anew, and returns the loss.

        Returns:
            What the closure does.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.ndim < 2:
                    p.add_(p.grad, alpha=-group["lr"])
                else:
                    self._pulse(p, group["lr"])
        return loss

    def _pulse(self, p: Tensor, lr: float) -> None:
        state = self.state[p]
        state["step"] += 1
        scale, generator = state["scale"].to(p), self._generator(p)
        w = (state["held"] if "held" in state else p.detach() / scale).flatten().clone()
        if self.device.lifetime:
            w.mul_(math.exp(-1 / self.device.lifetime))
        assert p.grad is not None
        wanted = (p.grad / scale).flatten().mul_(-lr)
        pulsed = self._array(p).pulse(w, wanted, self.pulses, generator)
        self._write(p, w, pulsed, generator)

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("device", "seed", "pulses", "full_scale")}
        return {**super().__getstate__(), **own, "_arrays": {}}
