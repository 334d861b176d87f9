"""A rule beside its twin: made of the same weights, with the same states and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dualprop as dp
from tests.oracles.twin import Twin


def same_settings(rule: dp.DualProp, loss: str) -> dict[str, Any]:
    """Weights and settings of a rule, as both twins take them; the loss as they call it."""
    synapses = [layer.synapse.core for layer in rule.net.chain]
    return {
        "weights": [s.weight.detach().numpy() for s in synapses],
        "biases": [s.bias.detach().numpy() for s in synapses],
        "feedback": [None if s.feedback is None else s.feedback.detach().numpy() for s in synapses],
        "alpha": rule.nudge.alpha,
        "beta": rule.nudge.beta,
        "transpose": rule.nudge.transpose,
        "loss": loss,
    }


def drawn(updates: int, depth: int, seed: int) -> list[int]:
    """The order that a rule with a random schedule draws first."""
    generator = torch.Generator().manual_seed(seed)
    return [k for update in dp.Random(updates, seed=seed).updates(depth, generator) for k in update.layers]


def close(ours: Tensor, theirs: np.ndarray) -> None:
    """Equal but for rounding."""
    scale = max(1.0, float(np.abs(theirs).max()))
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-9, atol=1e-11 * scale)


def assert_states(state: dp.DyadicState, twin: Twin) -> None:
    """Both states of every neuron, their mean and their difference."""
    assert len(state.plus) == len(state.minus) == len(state.mean) == len(state.difference) == twin.L + 1
    for k in range(twin.L + 1):
        shape = twin.plus[k].shape
        close(state.plus[k].flatten(1), twin.plus[k])
        close(state.minus[k].flatten(1), twin.minus[k])
        for ours, theirs in ((state.mean[k], twin.mean), (state.difference[k], twin.difference)):
            close(ours.flatten(1), np.array([theirs(k, n, i) for n, i in np.ndindex(*shape)]).reshape(shape))


def assert_gradients(gradient: Mapping[str, Tensor], twin: Twin) -> None:
    """Of all weights, feedback weights and biases, and of nothing else."""
    weights, biases = twin.gradient()
    seen = set()
    for k in range(1, twin.L + 1):
        expected = {"weight": weights[k - 1], "bias": biases[k - 1]}
        if twin.B[k] is not None:
            expected["feedback"] = weights[k - 1]
        for name, value in expected.items():
            (key,) = (n for n in gradient if n.startswith(f"layers.{k - 1}.") and n.endswith(f".{name}"))
            close(gradient[key], value)
            seen.add(key)
    assert seen == set(gradient)
