"""Settings of the whole suite: property tests without a deadline, the same examples in every run; GPU tests."""

import logging
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from dualprop.runs.settings import Settings
from tests.slow import measured, name_of

settings.register_profile("dualprop", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("dualprop")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Cases that take long are slow; tests marked `gpu` run where there is a CUDA device."""
    slow = measured()
    for item in items:
        if name_of(item.nodeid.partition(".py::")[0].replace("/", "."), item.name) in slow:
            item.add_marker(pytest.mark.slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _one_thread_one_seed() -> Iterator[None]:
    """For every test: small matrices, bit-exact comparisons; the loggers as they were, which commands set."""
    threads, root, ours = torch.get_num_threads(), logging.getLogger(), logging.getLogger("dualprop")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    root.handlers[:] = handlers
    for logger, level in zip((root, ours), levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def quick() -> Settings:
    """A run of a second: real digits, a small net, several checkpoints' worth of steps."""
    return Settings(data="digits", hidden=(24, 16), epochs=2, batch_size=100, log_every=5, alignment=False)
