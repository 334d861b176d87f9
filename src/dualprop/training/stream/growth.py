"""Classes and features that were not there before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from dualprop.errors import DualpropError
from dualprop.nets.net import Net
from dualprop.nets.synapses import Dense
from dualprop.training.stream.labels import new_classes


class Growth:
    """What a chain lacks of a frame and its label: inputs of its first synapse, neurons of its last.

    Args:
        net: the chain.
        samples: how many samples a frame has.

    Raises:
        DualpropError: if the first or the last synapse is not dense, or has a pool.
    """

    def __init__(self, net: Net, samples: int) -> None:
        net.widen()  # or an error
        self._net, self._samples = net, samples

    @property
    def features(self) -> int:
        """How many the net reads."""
        first = self._net.chain[0].synapse
        assert isinstance(first, Dense)
        return first.in_features

    @property
    def classes(self) -> int:
        """How many the net knows."""
        last = self._net.chain[-1].synapse
        assert isinstance(last, Dense)
        return last.out_features

    def wanted(self, x: Tensor | None, y: Any) -> tuple[int, int]:
        """How many features and classes are new.

        Args:
            x: the frame, if one comes in.
            y: its label, as an `Encoder` takes it.

        Raises:
            DualpropError: for features that are not side by side, or a class that is not the next.
        """
        classes = new_classes(y, self.classes)
        if x is None:
            return 0, classes
        if x.ndim != 1 + (self._samples > 1):
            raise DualpropError(f"x: shape {tuple(x.shape)}, but a net that grows takes features side by side")
        return max(0, x.shape[-1] - self.features), classes

    def fitted(self, x: Tensor) -> Tensor:
        """A frame as the net reads it: zeros for what has vanished, without what it does not know."""
        return functional.pad(x, (0, self.features - x.shape[-1]))

    def lacking(self, weights: Mapping[str, Tensor]) -> tuple[int, int]:
        """How many inputs and outputs the net has less than the weights of another one."""
        first, last = weights["layers.0.synapse.weight"], weights[f"layers.{len(self._net) - 1}.synapse.weight"]
        return first.shape[1] - self.features, len(last) - self.classes
