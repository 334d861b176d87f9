"""Small workloads."""

import pytest
import torch

from dualprop.studies.bench.workload import Workload


@pytest.fixture
def workload():
    """A small mlp in float32 on the processor."""
    return Workload("mlp", 784, (16, 12), torch.float32, 6, torch.device("cpu"))
