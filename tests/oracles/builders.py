"""Nets, batches and gradients in double precision for the tests of the engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

import dualprop as dp


def double_net(sizes: Sequence[int], activation: str = "tanh", *, seed: int = 0, **kinds: str) -> dp.Net:
    """An mlp in float64 whose biases are not zero, so that a lost bias shows."""
    generator = torch.Generator().manual_seed(seed)
    net = dp.nets.mlp(sizes, activation, generator=generator, **kinds).double()
    with torch.no_grad():
        for layer in net.chain:
            layer.synapse.bias.uniform_(-0.3, 0.3, generator=generator)
    return net


def double_batch(n: int, features: int, classes: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n samples of `features` normal numbers and their class indices."""
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(n, features, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def suited(method: dp.Method, activation: str = "relu") -> dict[str, str]:
    """Options of a net for a rule: this activation, unless the rule needs one of its own, and its feedback."""
    own = activation if method.activation == "relu" else method.activation
    return {"activation": own, "feedback": method.feedback}


def image_net(synapses: Iterable[dp.Synapse], activation: str = "tanh", *, seed: int = 0) -> dp.Net:
    """A float64 net of these synapses, linear on top; weights and biases by `seed`, none of them zero."""
    synapses = list(synapses)
    potentials = [activation] * (len(synapses) - 1) + ["linear"]
    net = dp.Net(map(dp.Layer, synapses, potentials)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(-0.3, 0.3, generator=generator)
            if p.ndim > 1:
                p.mul_(6 / math.sqrt(p[0].numel()))
    return net


def small_conv_net(
    activation: str = "tanh", feedback: str = "symmetric", *, pool: str = "max", seed: int = 0
) -> dp.Net:
    """2 x 6 x 6 -> 3 channels -> pool -> 4 channels -> average-pool -> 5 -> 3 neurons, in float64."""
    own = {"feedback": feedback}
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 4, 3, padding=1, pool=dp.POOLS[pool](2), **own),
        dp.Dense(16, 5, pool=dp.AvgPool2d(2, stride=1), **own),
        dp.Dense(5, 3, **own),
    ]
    return image_net(synapses, activation, seed=seed)


def image_batch(
    n: int, shape: Sequence[int] = (2, 6, 6), classes: int = 3, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """n images of normal numbers in float64, and their class indices."""
    generator = torch.Generator().manual_seed(2000 + seed)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (n,), generator=generator)


def gradient_of(rule: dp.Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What one `backward` puts into `.grad`, by parameter name."""
    rule.net.zero_grad(set_to_none=True)
    rule.backward(x, y)
    return {name: p.grad.clone() for name, p in rule.net.named_parameters() if p.grad is not None}


def gradient_twice(rule: dp.DualProp, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The same, once it has been computed: from a rule's second batch on, calls are bound to memory that stays."""
    first = rule.gradients(x, y)
    second = gradient_of(rule, x, y)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    return second


def autograd_gradient(net: dp.Net, loss: dp.Loss | str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The true gradient of the batch-mean loss, without any of the library's rules."""
    named = {n: p for n, p in net.named_parameters() if not n.endswith("feedback")}
    output = net(x)
    if isinstance(loss, dp.Loss):
        value = loss.value(output, y).mean()
    elif loss == "cross_entropy":
        value = torch.nn.functional.cross_entropy(output, y)
    else:
        target = y if y.is_floating_point() else torch.nn.functional.one_hot(y, output.shape[1]).to(output)
        value = 0.5 * (output - target).square().sum() / len(x)
    return dict(zip(named, torch.autograd.grad(value, list(named.values())), strict=True))


def finite_difference(f: Callable[[], float], parameter: Tensor, step: float = 1e-5) -> Tensor:
    """df/dp by central differences for every number p of a parameter, flattened; they are as before afterwards."""
    numbers = parameter.data.view(-1)

    def at(i: int, value: float) -> float:
        numbers[i] = value
        return f()

    slopes = []
    for i, p in enumerate(numbers.tolist()):
        slopes.append((at(i, p + step) - at(i, p - step)) / (2 * step))
        numbers[i] = p
    return torch.tensor(slopes, dtype=parameter.dtype)


def flat(gradient: Mapping[str, Tensor]) -> Tensor:
    """All numbers of a gradient in one vector, the feedback weights' left out."""
    return torch.cat([g.flatten() for name, g in gradient.items() if not name.endswith("feedback")])


def relative_error(estimate: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> float:
    """‖estimate - truth‖ / ‖truth‖."""
    return float((flat(estimate) - flat(truth)).norm() / flat(truth).norm())


def cosine(estimate: Mapping[str, Tensor], truth: Mapping[str, Tensor], layer: int) -> float:
    """Cosine between two gradients in layer 1..L, weights and bias together."""
    ours, theirs = (
        flat({n: t for n, t in g.items() if n.startswith(f"layers.{layer - 1}.")}) for g in (estimate, truth)
    )
    return float(ours @ theirs / (ours.norm() * theirs.norm()))


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of log y against log x by least squares: the measured order."""
    u, v = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    covariance = sum((p - mean_u) * (q - mean_v) for p, q in zip(u, v, strict=True))
    return covariance / sum((p - mean_u) ** 2 for p in u)


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, rtol: float = 1e-10) -> None:
    """Two gradients are the same to rounding; numbers near zero are measured against the largest."""
    assert set(ours) == set(theirs)
    for name, gradient in ours.items():
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(gradient, theirs[name], rtol=rtol, atol=rtol * max(scale, 1e-3), msg=None)


def assert_identical(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Two sets of named tensors agree to the last bit."""
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def follow_rounds(rule: dp.DualProp, twin, x: torch.Tensor, y: torch.Tensor, infer, check) -> int:
    """Take an SGD step after each round in rule and twin alike; how many rounds there were.

    `infer(number)` lets the twin infer in round `number` from 0 on, `check(gradients)` compares them with its own.
    """
    net = rule.net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, weight_decay=0.01)
    optimizer.zero_grad()
    rounds = 0
    for _ in rule.iterate(x, y):
        infer(rounds)
        check({name: p.grad for name, p in net.named_parameters()})
        twin.descend(lr=0.5, decay=0.01)
        optimizer.step()
        optimizer.zero_grad()
        rounds += 1
    return rounds
