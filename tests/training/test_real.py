"""Real MNIST, when it is there: the numbers that the README promises, in short."""

import os
from pathlib import Path

import pytest

from dualprop import Settings, data, train

HERE = os.environ.get("DUALPROP_DATA")
needs_mnist = pytest.mark.skipif(
    HERE is None or bool(data.DATASETS["mnist"].missing(Path(HERE))), reason="no MNIST under DUALPROP_DATA"
)


@pytest.mark.slow
@pytest.mark.real
@needs_mnist
def test_one_epoch_of_dual_propagation_on_mnist(tmp_path):
    """784-1000-1000-1000-10, ReLU, squared error, Adam 3e-5, batch 100, β = 1; bp is at 94.5 % here."""
    settings = Settings(rule="dp", data="mnist", hidden=(1000, 1000, 1000), lr=3e-5, epochs=1)
    result = train(settings, tmp_path / "run")
    assert result.test_accuracy == pytest.approx(0.945, abs=0.01)
