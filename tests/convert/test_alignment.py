"""The angle between a converted module's gradient and back-propagation's."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Dropout(0.3))
        self.head, self.unused = nn.Linear(9, 3), nn.Linear(2, 2)

    def forward(self, x, scale=1.0):
        return self.head(torch.relu(self.body(x))) * scale


def gradients(module, x, y):
    torch.manual_seed(5)
    loss = F.cross_entropy(module(x), y)
    loss.backward()
    return {name: p.grad.double().flatten() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("settings", [{}, {"kolen_pollack": True}])
def test_it_is_the_angle_of_the_two_gradients(settings):
    x, y = torch.randn(5, 6), torch.arange(5) % 3
    plain = Model()
    module = dp.convert(copy.deepcopy(plain), beta=20.0, **settings)
    state = copy.deepcopy(module.state_dict())
    ours, theirs = gradients(copy.deepcopy(module), x, y), gradients(plain, x, y)
    torch.manual_seed(5)
    cosine, norm_ratio, total = dp.alignment(module, F.cross_entropy, x, y)
    assert list(cosine) == list(norm_ratio) == ["body.0", "body.1", "head"]
    for owner in cosine:
        a, b = (torch.cat([side[f"{owner}.{kind}"] for kind in ("weight", "bias")]) for side in (ours, theirs))
        assert cosine[owner] == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
        assert norm_ratio[owner] == pytest.approx(float(a.norm() / b.norm()), rel=1e-5)
    a, b = (torch.cat([side[name] for name in theirs]) for side in (ours, theirs))
    assert total == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-6)
    assert total < 0.999
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert gradients(copy.deepcopy(module), x, y)["head.weight"].equal(ours["head.weight"])  # still converted


def test_several_arguments_and_what_is_refused():
    x, y = torch.randn(5, 6), torch.arange(5) % 3
    module = dp.convert(Model(), beta=1e-3).eval()
    for given in ((x, 2.0), {"x": x, "scale": 2.0}):
        assert dp.alignment(module, F.cross_entropy, given, y).total > 0.99
    with pytest.raises(dp.DualpropError, match="Linear is not converted"):
        dp.alignment(nn.Linear(2, 2), F.cross_entropy, x, y)
    for wrong, says in (
        ((x, y), "loss_fn: of type Tensor, but it must be a function"),
        ((F.cross_entropy, x), "y: missing"),
    ):
        with pytest.raises(dp.DualpropError, match=says):
            dp.alignment(module, *wrong)
    with pytest.raises(dp.DualpropError, match="no parameter gets a gradient"):
        dp.alignment(module, lambda output, y: x.clone().requires_grad_().sum(), x, y)


def test_a_weight_that_modules_share_counts_in_each_and_frozen_ones_in_none():
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)
    )
    net[2].weight = net[0].weight
    net[4].weight.requires_grad_(False)
    found = dp.alignment(dp.convert(net, beta=9.0), F.cross_entropy, torch.randn(5, 4), torch.arange(5) % 3)
    assert list(found.cosine) == ["0", "2", "4"]
    assert found.cosine["0"] == found.cosine["2"] < 1
    assert found.cosine["4"] == pytest.approx(1)  # the bias alone
