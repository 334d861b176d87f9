"""The number of samples is seen wherever the batch is, so that β means the same however a module is called."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import dualprop as dp

BATCH = 20


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    made = [nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 3)]
    return [layer.double() for layer in made]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (BATCH,), generator=generator)


def gradients(model: nn.Module, output) -> list[torch.Tensor]:
    F.cross_entropy(output, batch()[1]).backward()
    return [p.grad for p in model.parameters()]


def expected() -> list[torch.Tensor]:
    model = dp.convert(nn.Sequential(*layers()), beta=5.0)
    return gradients(model, model(batch()[0]))


@dataclass
class Batch:
    name: str
    x: torch.Tensor


class Taking(nn.Module):
    """Takes its batch in a container."""

    def __init__(self, take):
        super().__init__()
        self.body, self.take = nn.Sequential(*layers()), take

    def forward(self, *args, **kwargs):
        return self.body(self.take(*args, **kwargs))

    def features(self, x):
        return self.body(x)


@pytest.mark.parametrize(
    ("take", "args", "kwargs"),
    [
        (lambda given: given["x"], ({"mask": None, "x": batch()[0]},), {}),
        (lambda given: given[0], ([batch()[0], 3],), {}),
        (lambda given: given.x, (Batch("a", batch()[0]),), {}),
        (lambda temperature, given: given, (torch.tensor(2.0), batch()[0]), {}),
        (lambda given: given[1]["x"], (), {"given": ("a", {"x": batch()[0]})}),
    ],
    ids=["mapping", "list", "dataclass", "after a scalar", "nested keyword"],
)
def test_the_batch_may_be_inside_an_argument(take, args, kwargs):
    model = dp.convert(Taking(take), beta=5.0)
    for ours, theirs in zip(gradients(model, model(*args, **kwargs)), expected(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)
    assert dp.conversion(model).samples == BATCH


def test_another_method_a_slice_and_a_part():
    x, _ = batch()
    model = dp.convert(Taking(None), beta=5.0)
    ways = {
        "method": (model, model.features(x)),
        "part": (model, model.body(x)),
        "slices": (model, model.body[2:](model.body[:2](x))),
    }
    for name, (module, output) in ways.items():
        module.zero_grad()
        for ours, theirs in zip(gradients(module, output), expected(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0, msg=name)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_of_submodules(reentrant):
    x = batch()[0].requires_grad_()
    model = dp.convert(nn.Sequential(*layers()), beta=5.0)
    output = checkpoint_sequential(model, 2, x, use_reentrant=reentrant)
    for ours, theirs in zip(gradients(model, output), expected(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


class Windows(nn.Module):
    """A checkpointed part with more rows than samples, as window attention has."""

    def __init__(self, checked):
        super().__init__()
        self.first, self.part, self.last = (
            nn.Linear(6, 8),
            nn.Sequential(nn.Linear(4, 4), nn.Tanh()),
            nn.Linear(8, 3),
        )
        self.checked = checked

    def forward(self, x):
        rows = self.first(x).view(2 * len(x), 4)
        rows = checkpoint(self.part, rows, use_reentrant=True) if self.checked else self.part(rows)
        return self.last(rows.view(len(x), 8))


def test_what_is_computed_again_keeps_the_samples_of_the_forward_pass():
    made = []
    for checked in (False, True):
        torch.manual_seed(0)
        model = dp.convert(Windows(checked).double(), beta=5.0)
        made.append(gradients(model, model(batch()[0])))
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=0)


def test_no_batch_at_all_is_refused():
    model = dp.convert(Taking(lambda: batch()[0]))
    with pytest.raises(dp.DualpropError, match=r"^Taking: no batch among its arguments"):
        model()


def helper(x):
    return F.relu(x)


class Hidden(nn.Module):
    """Activations in a helper, in a nested function and in a list."""

    def __init__(self):
        super().__init__()
        self.acts = [torch.sigmoid]

    def forward(self, x):
        return self.acts[0](helper((lambda z: torch.tanh(z))(x)))


def test_activations_in_helpers_nested_functions_and_lists_are_reported():
    assert dp.conversion(dp.convert(Hidden())).converted == {"": "ReLU, Sigmoid, Tanh"}
