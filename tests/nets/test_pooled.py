"""A synapse with pooling behind: values, adjoint, gradients, what the engine makes of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
from dualprop.nets.synapses import POOLS, frozen_weights
from tests.oracles.builders import autograd_gradient, gradient_of, image_batch, image_net, relative_error
from tests.oracles.refused import refused

INNER = {
    "convolution": lambda: dp.Conv2d(2, 3, 3, padding=1),
    "pool in front": lambda: dp.Conv2d(2, 3, 3, padding=1, pool=dp.MaxPool2d(2, stride=1)),
    "Kolen-Pollack": lambda: dp.Conv2d(2, 3, 3, feedback="kolen-pollack"),
    "module": lambda: dp.Affine(nn.ConvTranspose2d(2, 3, 2)),
}
BEHIND = [*(kind(2) for kind in POOLS.values()), dp.MaxPool2d(3, stride=2), dp.SoftmaxPool2d(3, 1, 0.5)]
SCHEDULES = [dp.Sweep(), dp.Sweep(3), dp.Parallel(9), dp.Random(60, seed=1), dp.Random([2, 1, 4, 3, 2, 2, 1])]
"""After all but the last every layer has heard of the target."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(synapse: dp.Synapse) -> dp.Synapse:
    for p in synapse.double().parameters():
        nn.init.normal_(p, generator=torch.Generator().manual_seed(p.numel()))
    return synapse


def plain(pool: dp.synapses.Pool, a: Tensor) -> Tensor:
    """The pool as PyTorch has it, or as its definition says."""
    if isinstance(pool, dp.SoftmaxPool2d):
        windows = nn.functional.unfold(a.flatten(0, 1)[:, None], pool.size, stride=pool.stride)
        pooled = (windows * torch.softmax(windows / pool.temperature, 1)).sum(1)
        return pooled.view(*a.shape[:2], *pool.out_shape(a.shape[1:])[1:])
    kind = nn.MaxPool2d if isinstance(pool, dp.MaxPool2d) else nn.AvgPool2d
    return kind(pool.size, pool.stride)(a)


@pytest.mark.parametrize("pool", BEHIND, ids=str)
@pytest.mark.parametrize("inner", INNER)
def test_it_is_the_synapse_then_the_pool_with_autograd_s_derivatives(inner, pool):
    synapse = dp.Pooled(drawn(INNER[inner]()), pool)
    z = normal(2, 2, 7, 6, seed=0).requires_grad_()
    drive = plain(pool, synapse.synapse(z))
    named = {n: p for n, p in synapse.named_parameters() if not n.endswith("feedback")}
    delta = normal(*drive.shape, seed=1)
    truth = torch.autograd.grad((delta * drive).sum(), [z, *named.values()])
    torch.testing.assert_close(synapse(z), drive)
    (again,) = torch.autograd.grad(synapse(z), z, delta)
    torch.testing.assert_close(again, truth[0])
    with torch.no_grad():
        torch.testing.assert_close(synapse(z), drive)
        assert synapse.out_shape((2, 7, 6)) == drive.shape[1:]
        p, seen = synapse.linearise(z)
        torch.testing.assert_close(synapse.affine(p), drive)
        if not synapse.feedback_pairs():
            torch.testing.assert_close(synapse.adjoint_at(delta, seen), truth[0])
            torch.testing.assert_close(synapse.adjoint(delta, z), truth[0])
        synapse.add_grad(delta, z)
    for (name, p), expected in zip(named.items(), truth[1:], strict=True):
        torch.testing.assert_close(p.grad, expected, msg=name)


def test_own_feedback_weights_carry_the_adjoint_and_learn():
    synapse = dp.Pooled(drawn(INNER["Kolen-Pollack"]()), dp.MaxPool2d(2))
    inner, z = synapse.synapse, normal(2, 2, 7, 6, seed=0)
    delta = normal(2, *synapse.out_shape((2, 7, 6)), seed=1)
    assert [(id(w), id(b)) for w, b in synapse.feedback_pairs()] == [(id(inner.weight), id(inner.feedback))]
    with torch.no_grad():
        at_drive = synapse.behind.adjoint(delta, synapse.behind.linearise(inner(z))[1])
        expected = nn.functional.conv_transpose2d(at_drive, inner.feedback)
        torch.testing.assert_close(synapse.adjoint(delta, z), expected)
        synapse.add_grad(delta, z)
    assert inner.weight.grad.abs().max() > 0
    assert torch.equal(inner.feedback.grad, inner.weight.grad)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("pool", BEHIND[:3], ids=str)
def test_memory_formats_in_and_out(pool, layout):
    synapse = dp.Pooled(dp.Conv2d(4, 8, 3, padding=1), pool).to(memory_format=layout)
    z = torch.randn(2, 4, 6, 6).to(memory_format=layout)
    with torch.no_grad():
        p, seen = synapse.linearise(z)
        assert p.is_contiguous(memory_format=layout)
        expected = synapse.adjoint_at(torch.ones_like(p), seen)
        assert expected.stride() == z.stride()
        for other in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(
                synapse.adjoint_at(torch.ones_like(p).to(memory_format=other), seen), expected
            )


def test_low_precision_weights_are_kept_for_an_inference():
    synapse = dp.Pooled(dp.Conv2d(4, 8, 3), dp.MaxPool2d(2))
    with torch.no_grad(), frozen_weights([synapse]):
        synapse(torch.randn(2, 4, 6, 6).bfloat16())
        low = synapse.core.upward(torch.bfloat16)
        assert low.dtype == torch.bfloat16
        assert synapse.core.upward(torch.bfloat16) is low
    assert synapse.core.upward(torch.bfloat16) is not low


def behind_net(
    pool: dp.synapses.Pool, activation: str = "tanh", feedback: str = "symmetric", seed: int = 0
) -> dp.Net:
    synapses = [
        dp.Pooled(dp.Conv2d(2, 3, 3, padding=1), pool),
        dp.Pooled(dp.Conv2d(3, 4, 2, padding=1, feedback=feedback), pool),
        dp.Dense(16, 5, feedback=feedback),
        dp.Dense(5, 3, feedback=feedback),
    ]
    return image_net(synapses, activation, seed=seed)


@pytest.mark.parametrize("schedule", SCHEDULES[:-1], ids=str)
@pytest.mark.parametrize("pool", BEHIND[:3], ids=str)
def test_small_nudges_recover_backprop(pool, schedule):
    net, (x, y) = behind_net(pool), image_batch(4)
    truth = autograd_gradient(net, "mse", x, y)
    assert relative_error(gradient_of(dp.DualProp(net, beta=1e-6, schedule=schedule), x, y), truth) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_products_are_counted_as_they_are_made(schedule, monkeypatch):
    """Besides, every synapse with a pool behind makes its map once more to learn."""
    made = []
    for kind in (dp.Dense, dp.Conv2d):
        for method in ("affine", "transposed"):
            original = getattr(kind, method)
            monkeypatch.setattr(
                kind, method, lambda self, *args, original=original: made.append(1) or original(self, *args)
            )
    net = behind_net(dp.MaxPool2d(2))
    step = dp.DualProp(net, beta=0.5, schedule=schedule).backward(*image_batch(3))
    assert len(made) == step.products + 2
    if schedule == dp.Sweep():
        assert step.products == 4 + 3


@pytest.mark.parametrize("name", [name for name, method in dp.RULES.items() if method.rule is dp.DualProp])
def test_dual_propagation_s_variants_learn(name):
    method = dp.RULES[name]
    net, (x, y) = behind_net(dp.MaxPool2d(2), "tanh", method.feedback), image_batch(12)
    rule, optimizer = method(net), torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        for step in rule.iterate(x, y):
            losses.append(float(step.loss))
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
def test_an_update_at_each_gradient_gives_the_weights_of_an_update_after_all(low):
    """The map that a synapse makes to learn has the weights from before its update."""
    nets = [behind_net(dp.MaxPool2d(2)).float() for _ in range(2)]
    rules = [dp.DualProp(net, beta=0.5, rounds=2) for net in nets]
    after = torch.optim.SGD(nets[0].parameters(), lr=0.1, momentum=0.9)
    fused = dp.FusedUpdate(nets[1].parameters(), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    for seed in range(2):
        x, y = image_batch(4, seed=seed)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            for _ in rules[0].iterate(x.float(), y):
                after.step()
                after.zero_grad()
            with fused:
                for _ in rules[1].iterate(x.float(), y):
                    pass
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q)


def test_autocast_gives_nearly_the_same_gradient():
    net, (x, y) = behind_net(dp.SoftmaxPool2d(2)).float(), image_batch(8)
    rule, x = dp.DualProp(net, beta=0.5), x.float()
    full = gradient_of(rule, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        low = gradient_of(rule, x, y)
    assert relative_error(low, full) < 0.05
    assert all(g.dtype == torch.float32 for g in low.values())


def test_it_says_what_it_is_made_of():
    said = repr(dp.Pooled(dp.Conv2d(2, 3, 3), dp.MaxPool2d(2)))
    assert "behind=MaxPool2d(2, stride=2)" in said
    assert "Conv2d(2, 3, 3" in said


@pytest.mark.parametrize(
    ("front", "behind", "linear"),
    [
        (None, dp.AvgPool2d(2), True),
        (None, dp.MaxPool2d(2), False),
        (dp.MaxPool2d(2), dp.AvgPool2d(2), False),
        (dp.AvgPool2d(2), dp.AvgPool2d(2), True),
        (dp.AvgPool2d(2), dp.SoftmaxPool2d(2), False),
    ],
    ids=str,
)
def test_it_is_linear_where_both_pools_are(front, behind, linear):
    synapse = dp.Pooled(dp.Conv2d(2, 3, 3, pool=front), behind)
    assert synapse.linear is linear
    assert synapse.core.linear is (front is None or front.linear)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: dp.Pooled(nn.Conv2d(2, 3, 3), dp.MaxPool2d(2)), r"^synapse: of type Conv2d"),
        (lambda: dp.Pooled(dp.Conv2d(2, 3, 3), nn.MaxPool2d(2)), r"^pool: of type MaxPool2d"),
        (lambda: dp.Pooled(dp.Conv2d(2, 3, 3), None), r"^pool"),
        (
            lambda: dp.Pooled(dp.Pooled(dp.Conv2d(2, 3, 3), dp.MaxPool2d(2)), dp.MaxPool2d(2)),
            r"^synapse: .*already, MaxPool2d",
        ),
        (lambda: dp.Pooled(dp.Conv2d(2, 3, 3), dp.MaxPool2d(2)).out_shape((2, 3, 3)), r"^x: MaxPool2d"),
        (lambda: dp.Pooled(dp.Conv2d(2, 3, 3), dp.MaxPool2d(2)).out_shape((1, 6, 6)), r"^x: shape"),
        (lambda: dp.Pooled(dp.Dense(4, 3), dp.MaxPool2d(2)).out_shape((4,)), r"^x: MaxPool2d"),
    ],
)
def test_what_is_refused_in_one_line(make, match):
    with refused(match):
        make()


def test_it_cannot_learn_from_its_drive():
    synapse = dp.Pooled(dp.Conv2d(2, 3, 3), dp.MaxPool2d(2))
    assert hasattr(synapse.core, "hebbian")
    assert not hasattr(synapse, "hebbian")  # add_grad asks for the state
