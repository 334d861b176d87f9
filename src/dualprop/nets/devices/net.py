"""A net as one rule has it on its devices: the very weights, and neurons whose states leave through channels."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override

from dualprop.nets import crossing
from dualprop.nets.devices.places import Devices, Line
from dualprop.nets.net import Layer, Net
from dualprop.nets.potentials import Potential


class Leaving(Potential):
    """A potential whose neurons are read through channels during steps on their devices; ideal at other times.

    Args:
        ideal: the potential.
        line: what its states leave by, and plus states where there are two.
        other: what minus states leave by.
    """

    draws = True

    def __init__(self, ideal: Potential, line: Line, other: Line) -> None:
        self._ideal, self.line, self.other = ideal, line, other
        for name in ("projects", "holomorphic", "convex"):
            setattr(self, name, getattr(ideal, name))

    @property
    def ideal(self) -> Potential:
        """The potential."""
        return self._ideal

    @property
    def minus(self) -> Potential:
        """That of the other half of a dyad."""
        return Leaving(self.ideal, self.other, self.line)

    @override
    def leave(self, z: Tensor) -> Tensor:
        return self.line(z) if self.line.open else z

    def __call__(self, a: Tensor) -> Tensor:
        """What is read of f(a)."""
        return self.leave(self.ideal(a))

    def over(self, a: Tensor) -> Tensor:
        """What is read of f(a), possibly written over a."""
        return self.leave(self.ideal.over(a))

    @override
    def over_parts(self, re: Tensor, im: Tensor) -> None:
        self.ideal.over_parts(re, im)
        if self.line.open:
            re.copy_(self.line(re))
            with crossing.imaginary():
                im.copy_(self.line(im))

    def energy(self, z: Tensor) -> Tensor:
        """G(z)."""
        return self.ideal.energy(z)

    def conjugate(self, a: Tensor) -> Tensor:
        """G*(a)."""
        return self.ideal.conjugate(a)

    def module(self) -> nn.Module:
        """f as a module: that of an ideal neuron."""
        return self.ideal.module()

    def __str__(self) -> str:
        return str(self.ideal)


class OnDevices(Net):
    """A net on devices: the modules and parameters of another, under the same names.

    Args:
        net: the other.
        devices: whose channels its states leave by.
    """

    def __init__(self, net: Net, devices: Devices) -> None:
        vars(self).update(vars(net))  # also its table of modules, so that nothing is there twice
        vars(self).update(_ideal=net, _devices=devices, _seen={})

    @property
    def ideal(self) -> Net:
        """The other net."""
        net: Net = vars(self)["_ideal"]
        return net

    @property
    def stack(self) -> list[Layer]:
        """Its layers, with neurons on devices."""
        return [self._on(k, layer) for k, layer in enumerate(self.ideal.stack, 1)]

    @property
    def layers(self) -> list[Layer]:  # type: ignore[override]
        """The same."""
        return self.stack

    def _on(self, k: int, layer: Layer) -> Layer:
        lines = vars(self)["_devices"].leaving.get(k)
        if lines is None:
            return layer
        seen: dict[int, Layer] = vars(self)["_seen"]
        if k not in seen or seen[k].potential.ideal is not layer.potential:
            made = Layer.__new__(Layer)
            vars(made).update(vars(layer), potential=Leaving(layer.potential, *lines))
            seen[k] = made
        return seen[k]
