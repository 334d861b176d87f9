"""What a rule says of one weight update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dualprop.rules.batch import in_order


@dataclass(frozen=True, repr=False)
class Step:
    """What a rule saw on a batch, at one weight update.

    Attributes:
        loss: the batch's mean loss at `output`, a tensor without dimensions; their sum over several outputs.
        output: what the net said before the target touched it, shape (B, ...). For a rule whose states settle
            under the target's influence (random, parallel or repeated updates), f_L(a_L) at the last one. A tuple
            where the net has several outputs.
        products: matrix products that inference made, as far as the rule counts them (the gradient's own not
            counted).
        measures: what else the rule can say of its inference on this batch, numbers by name: the steps that a
            phase took, the residual that it left.
    """

    loss: Tensor
    output: Any
    products: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Numbers, and of the output its shape."""
        shapes = [tuple(output.shape) for output in in_order(self.output)]
        shape = shapes[0] if len(shapes) == 1 else tuple(shapes)
        measures = "".join(f", {name}={value:.4g}" for name, value in self.measures.items())
        return f"Step(loss={float(self.loss):.4g}, output={shape}, products={self.products}{measures})"
