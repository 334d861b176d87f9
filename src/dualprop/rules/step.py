"""What a rule says of one weight update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dualprop.rules.batch import in_order


@dataclass(frozen=True, repr=False)
class Step:
    """What a rule saw on a batch, at one weight update.

    Attributes:
        loss: the batch's mean loss at `output`, a tensor without dimensions; their sum over several outputs. With
            dual propagation, which does not need it, it is computed when it is first asked for.
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

    @classmethod
    def later(
        cls,
        loss: Callable[[], Tensor],
        output: Any,
        products: int,
        measures: Mapping[str, float],
    ) -> Step:
        """A step whose loss is computed when it is asked for."""
        step = object.__new__(cls)
        vars(step).update(_later=loss, output=output, products=products, measures=measures)
        return step

    def __getattr__(self, name: str) -> Any:
        if name != "loss" or "_later" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {name}")
        loss = vars(self)["loss"] = vars(self).pop("_later")()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {"loss": self.loss, "output": self.output, "products": self.products, "measures": self.measures}

    def __repr__(self) -> str:
        """Numbers, and of the output its shape."""
        shapes = [tuple(output.shape) for output in in_order(self.output)]
        shape = shapes[0] if len(shapes) == 1 else tuple(shapes)
        measures = "".join(f", {name}={value:.4g}" for name, value in self.measures.items())
        return f"Step(loss={float(self.loss):.4g}, output={shape}, products={self.products}{measures})"
