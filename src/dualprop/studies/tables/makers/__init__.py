"""What makes the cells of tables, by name in `MAKERS`: a new kind is a file here and a line below."""

from dualprop.registry import Registry
from dualprop.studies.tables.makers.base import Maker, Record
from dualprop.studies.tables.makers.training import Training

__all__ = ["MAKERS", "Maker", "Record", "Training"]

MAKERS: Registry[type[Maker]] = Registry("maker", {"training": Training})
