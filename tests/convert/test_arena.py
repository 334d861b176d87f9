"""Large activations of a converted module lie in memory that has served before: nobody can tell but by a clock."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
from dualprop.convert.activations import FiniteDifference
from dualprop.nets.kernels import arena

F = nn.functional


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, padding=1)),
        *(nn.Sigmoid(), nn.Flatten(), nn.Linear(16, 9), nn.Tanh(), nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 3)),
    )


def trained(m: nn.Module, *, low: bool = False, again: bool = False) -> list[Tensor]:
    """The parameters after three steps, the last on a smaller batch; `again` computes each batch twice."""
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for samples in (5, 5, 3):
        x, y = (
            torch.randn(samples, 2, 4, 4, generator=generator),
            torch.randint(3, (samples,), generator=generator),
        )
        for _ in range(2 if again else 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                loss = F.cross_entropy(m(x).float(), y)
            loss.backward(retain_graph=again)
            if again:
                loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in m.parameters()]


@pytest.mark.parametrize("settings", [{}, {"low": True}, {"again": True}])
@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_it_changes_no_bit(settings: dict[str, bool], alpha: float, monkeypatch: pytest.MonkeyPatch):
    weights = []
    for least in (1, 2**62):  # all results are put there, none is
        monkeypatch.setattr(arena, "LEAST", least)
        weights.append(trained(dp.convert(module(), alpha=alpha, beta=0.5), **settings))
    assert all(map(torch.equal, *weights))


def test_memory_is_found_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arena, "LEAST", 1)
    net, x, found = dp.convert(nn.Sequential(nn.Linear(4, 5), nn.ReLU())), torch.randn(3, 4), set[int]()
    for _ in range(5):
        z = net(x)
        found.add(z.untyped_storage().data_ptr())
        z.sum().backward()
        del z
    assert len(found) == 1


def test_what_a_graph_holds_is_not_written_over(monkeypatch: pytest.MonkeyPatch):
    """Two passes of one module are alive at once, and are gone through in the order of their coming."""
    monkeypatch.setattr(arena, "LEAST", 1)
    net, ordinary = (dp.convert(module(), beta=1e-4) for _ in range(2))
    xs = [torch.randn(3, 2, 4, 4) for _ in range(3)]
    losses = [net(x).square().sum() for x in xs]
    for loss in losses:
        loss.backward()
    monkeypatch.setattr(arena, "LEAST", 2**62)
    for x in xs:
        ordinary(x).square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), ordinary.parameters(), strict=True))


def test_a_second_derivative_has_its_graph(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arena, "LEAST", 1)
    net, x = dp.convert(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))), torch.randn(3, 4)
    (g,) = torch.autograd.grad(net(x).sum(), net[0].weight, create_graph=True)
    g.square().sum().backward()
    assert net[0].weight.grad is not None


def test_tensors_of_other_kinds_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arena, "LEAST", 1)

    class Own(Tensor):
        pass

    a = torch.randn(3, 4).as_subclass(Own).requires_grad_()
    with torch.no_grad(), arena.Arena().step():
        assert arena.room(a) is None
    assert torch.equal(FiniteDifference.apply(a, torch.relu, 0.5, 1.0, (), arena.Arena()), torch.relu(a))


def test_copies_begin_without_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(arena, "LEAST", 1)
    net = dp.convert(module())
    trained(net)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert all(map(torch.equal, trained(other), trained(copy.deepcopy(net))))
