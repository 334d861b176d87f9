"""What a net takes as its layers."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import dualprop as dp
from tests.oracles.refused import refused


@pytest.mark.parametrize("layers", [None, 3, [3], "ab", [dp.Dense(3, 4)], nn.Sequential(nn.Linear(3, 4))])
def test_what_is_no_layer_is_refused(layers: Any) -> None:
    with refused("layers.*: must be a list of dualprop.Layers"):
        dp.Net(layers)


@pytest.mark.parametrize(("name", "value"), [("tolerance", -1e-6), ("sweeps", 0), ("damping", 1.0)])
def test_settling_is_checked(name: str, value: float) -> None:
    with refused(f"{name}={value}: must be"):
        dp.Net([dp.Layer(dp.Dense(3, 4))], **{name: value})  # type: ignore[arg-type]


def test_a_net_needs_a_layer() -> None:
    with refused("layers: a net needs at least one"):
        dp.Net([])
