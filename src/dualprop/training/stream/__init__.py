"""Continuous inference and learning on a stream: a frame at each tick, states that are never reset.

Example:
    >>> import torch, dualprop as dp
    >>> learner = dp.stream.Learner(dp.nets.mlp([4, 8, 3]), loss="cross_entropy", beta=0.1)
    >>> for x, y in zip(torch.randn(20, 4), torch.randint(3, (20,)), strict=True):
    ...     tick = learner.tick(x, y)
    >>> tick.frame, tick.output.shape
    (18, torch.Size([3]))
"""

from dualprop.training.stream.learner import Learner
from dualprop.training.stream.pairing import Delayed, Pairing, Present
from dualprop.training.stream.steps import SGD, STEPS, Centred, Gradients, Local, Normalised
from dualprop.training.stream.tick import Tick

__all__ = [
    "SGD",
    "STEPS",
    "Centred",
    "Delayed",
    "Gradients",
    "Learner",
    "Local",
    "Normalised",
    "Pairing",
    "Present",
    "Tick",
]
