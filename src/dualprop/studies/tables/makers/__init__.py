"""What makes the cells of tables, by name in `MAKERS`: a new kind is a file here and a line below."""

from dualprop.registry import Registry
from dualprop.studies.tables.makers.asynchronous import Asynchronous
from dualprop.studies.tables.makers.base import Maker, Record
from dualprop.studies.tables.makers.bench import Bench
from dualprop.studies.tables.makers.convergence import Convergence
from dualprop.studies.tables.makers.measurement import MEASUREMENT
from dualprop.studies.tables.makers.noise import InNoise
from dualprop.studies.tables.makers.order import Order
from dualprop.studies.tables.makers.stream import Stream
from dualprop.studies.tables.makers.training import DIVERGED, Training

__all__ = [
    "DIVERGED",
    "MAKERS",
    "MEASUREMENT",
    "Asynchronous",
    "Bench",
    "Convergence",
    "InNoise",
    "Maker",
    "Order",
    "Record",
    "Stream",
    "Training",
]

MAKERS: Registry[type[Maker]] = Registry(
    "maker",
    {
        "training": Training,
        "bench": Bench,
        "convergence": Convergence,
        "order": Order,
        "noise": InNoise,
        "asynchronous": Asynchronous,
        "stream": Stream,
    },
)
