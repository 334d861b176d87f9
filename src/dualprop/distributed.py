"""Layers that train as workers of their own: no clock, no lock, no global step; see `dualprop.distributed.train`.

Needs the extra `distributed` but for `Simulated`, which is one process.

Example:
    >>> import dualprop as dp
    >>> dp.distributed.grouped(dp.distributed.costs(dp.nets.mlp([784, 512, 512, 10]), (784,)), 2)
    [(1, 1), (2, 3)]
"""

from dualprop.training.workers.calls import RayCalls
from dualprop.training.workers.grouping import costs, grouped
from dualprop.training.workers.held import Held
from dualprop.training.workers.in_flight import InFlight
from dualprop.training.workers.message import Kind, Message, RefusedError, unpacked
from dualprop.training.workers.parts import part_of
from dualprop.training.workers.simulated import Simulated, Simulation
from dualprop.training.workers.start import resume, train
from dualprop.training.workers.worker import Part, Worker
from dualprop.training.workers.zeromq import ZeroMQ

__all__ = [
    "Held",
    "InFlight",
    "Kind",
    "Message",
    "Part",
    "RayCalls",
    "RefusedError",
    "Simulated",
    "Simulation",
    "Worker",
    "ZeroMQ",
    "costs",
    "grouped",
    "part_of",
    "resume",
    "train",
    "unpacked",
]
