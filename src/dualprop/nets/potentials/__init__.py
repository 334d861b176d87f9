"""Convex potentials G, their conjugates G* and the activations f = ∇G* that they induce.

An activation is what minimises its potential against a drive: f(a) = argmin_z G(z) - z·a. Hence Fenchel and
Young's inequality, G(z) + G*(a) - z·a >= 0, with equality exactly at z = f(a).

Example:
    >>> import torch
    >>> f, a = POTENTIALS["relu"], torch.tensor([[-1.0, 2.0]])
    >>> f(a), f.energy(f(a)) + f.conjugate(a) - (f(a) * a).sum(1)
    (tensor([[0., 2.]]), tensor([0.]))

References:
    Høier, Staudt, Zach, *Dual Propagation*, ICML 2023, section 3.
"""

from dualprop.nets.potentials.base import Potential
from dualprop.nets.potentials.clip import Clip
from dualprop.nets.potentials.elu import ELU
from dualprop.nets.potentials.holo_tanh import HoloTanh
from dualprop.nets.potentials.leaky import LeakyReLU
from dualprop.nets.potentials.linear import Linear
from dualprop.nets.potentials.projection import Projection
from dualprop.nets.potentials.relu import ReLU
from dualprop.nets.potentials.rescaled import Rescaled
from dualprop.nets.potentials.sigmoid import Sigmoid
from dualprop.nets.potentials.softmax import Softmax, softmax
from dualprop.nets.potentials.tanh import Tanh
from dualprop.registry import Registry

__all__ = [
    "ELU",
    "POTENTIALS",
    "Clip",
    "HoloTanh",
    "LeakyReLU",
    "Linear",
    "Potential",
    "Projection",
    "ReLU",
    "Rescaled",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "softmax",
]

POTENTIALS: Registry[Potential] = Registry(
    "activation",
    {
        "linear": Linear(),
        "relu": ReLU(),
        "softmax": Softmax(),
        "hard-sigmoid": Clip(0, 1),
        "half-hard-sigmoid": Rescaled(Clip(0, 1), slope=0.5),
        "hard-tanh": Clip(-1, 1),
        "leaky-relu": LeakyReLU(),
        "elu": ELU(),
        "sigmoid": Sigmoid(),
        "shifted-sigmoid": Rescaled(Sigmoid(), slope=4.0, centre=0.5),
        "tanh": Tanh(),
        "holo-tanh": HoloTanh(),
    },
)
