"""What is done beside learning, one class for each thing.

A trainer has them in one list, and their order there is the order in which they are called.
"""

from dualprop.training.callbacks.base import Callback
from dualprop.training.callbacks.checkpoints import Checkpoints
from dualprop.training.callbacks.costs import Costs
from dualprop.training.callbacks.display import Display, RunLine
from dualprop.training.callbacks.evaluation import Alignment, Best, FinalTest, Validation
from dualprop.training.callbacks.gradients import AverageGradients, ClipGradients
from dualprop.training.callbacks.pictures import KeptPictures
from dualprop.training.callbacks.records import BestWeights, Records, Results

__all__ = [
    "Alignment",
    "AverageGradients",
    "Best",
    "BestWeights",
    "Callback",
    "Checkpoints",
    "ClipGradients",
    "Costs",
    "Display",
    "FinalTest",
    "KeptPictures",
    "Records",
    "Results",
    "RunLine",
    "Validation",
]
