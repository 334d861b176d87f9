"""Settings of the whole suite: property tests without a deadline, the same examples in every run; GPU tests."""

import pytest
import torch
from hypothesis import settings

settings.register_profile("dualprop", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("dualprop")


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` run where there is a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
