import pytest

from dualprop.settings import Settings


@pytest.fixture
def quick() -> Settings:
    """A run of a second: real digits, a small net, several checkpoints' worth of steps."""
    return Settings(data="digits", hidden=(24, 16), epochs=2, batch_size=100, log_every=5, alignment=False)
