"""The state engine under Lightning's Trainer: the extra `lightning`.

A model of one's own needs none of this: `dualprop.convert(model)`, and its LightningModule stays as it is.

Example:
    >>> import lightning, dualprop as dp
    >>> net = dp.nets.mlp([4, 8, 3])
    >>> module = DualPropModule(dp.DualProp(net), lambda parameters: torch.optim.Adam(parameters, lr=1e-2))
    >>> data = torch.utils.data.TensorDataset(torch.randn(50, 4), torch.arange(50) % 3)
    >>> trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", gradient_clip_val=1.0, barebones=True)
    >>> trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=10))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dualprop.arguments import check
from dualprop.errors import DualpropError
from dualprop.extras import extra
from dualprop.nets.synapses import without_hooks
from dualprop.rules import Rule
from dualprop.rules.batch import in_order, pair_of

with extra("lightning"):
    from lightning import LightningModule

HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class _Gradients(torch.autograd.Function):
    """A loss whose backward pass hands gradients down that are known already, times the incoming one.

    Whatever Lightning does to a loss and to gradients is done to these: division by the accumulated batches, a
    scaler's factor, averages over processes, clipping.
    """

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor | None], *parameters: Parameter) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:
        return None, None, *(None if g is None else factor.to(g.dtype) * g for g in ctx.gradients)


class DualPropModule(LightningModule):  # type: ignore[misc]
    """A rule and its net as a LightningModule.

    Args:
        rule: bound to the net that is trained. It makes one weight update a batch.
        optimizer: makes the optimizer of the net's parameters, or what else `configure_optimizers` may return.

    Raises:
        DualpropError: for a rule that makes several weight updates a batch, which Lightning's loop does not.
    """

    def __init__(self, rule: Rule, optimizer: Callable[[Iterable[Parameter]], Any]) -> None:
        super().__init__()
        check("rule", rule, Rule)
        if rule.updates_per_batch not in (None, 1):
            raise DualpropError(
                f"rule: makes {rule.updates_per_batch} weight updates a batch, but Lightning makes one"
            )
        self.net, self.rule, self.make_optimizer = rule.net, rule, optimizer

    def forward(self, x: Tensor) -> Any:
        """The rule's own prediction."""
        return self.rule.predict(x)

    def training_step(self, batch: tuple[Any, Any], _: int = 0) -> Tensor:
        """The loss of a batch, whose backward pass gives the rule's gradients."""
        parameters = list(self.net.parameters())
        kept = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        x, y = pair_of(batch)
        with without_hooks(parameters, *HOOKS):  # autograd will call them
            step = self.rule.backward(x, y)
        gradients = [p.grad for p in parameters]
        for p, grad in zip(parameters, kept, strict=True):
            p.grad = grad
        self.log("train_loss", step.loss.detach(), batch_size=len(in_order(x)[0]))
        loss: Tensor = _Gradients.apply(step.loss, gradients, *parameters)
        return loss

    def validation_step(self, batch: tuple[Any, Any], _: int = 0) -> None:
        """Log val_loss and, of class indices, val_accuracy."""
        self._log_scores("val", batch)

    def test_step(self, batch: tuple[Any, Any], _: int = 0) -> None:  # noqa: PT019 - no test of pytest's
        """Log test_loss and, of class indices, test_accuracy."""
        self._log_scores("test", batch)

    def _log_scores(self, part: str, batch: tuple[Any, Any]) -> None:
        """Of the rule's prediction: the loss summed over outputs, the accuracy at the first."""
        x, y = pair_of(batch)
        outputs, targets = in_order(self.rule.predict(x)), in_order(y)
        encoded = [
            loss.encode(t, z.shape, z.dtype) for loss, t, z in zip(self.rule.losses, targets, outputs, strict=True)
        ]
        numbers = {f"{part}_loss": self.rule.value(outputs, encoded)}
        if not targets[0].is_floating_point():
            numbers[f"{part}_accuracy"] = (outputs[0].argmax(1) == targets[0]).float().mean()
        self.log_dict(numbers, batch_size=len(targets[0]), sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """What `optimizer` makes."""
        return self.make_optimizer(self.net.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the rule keeps from batch to batch."""
        checkpoint["rule"] = self.rule.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        self.rule.load_state_dict(checkpoint["rule"])
