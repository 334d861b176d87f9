"""What every rule must do, whatever its mathematics: checks that each entry of `dualprop.RULES` inherits.

A check takes a `Method` (an entry of the registry) and a `Problem` (a kind of net, with batches for it), and
asserts. `CHECKS` and `PROBLEMS` hold all of them by name.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import dualprop as dp
from dualprop.nets.kernels import arena
from tests.oracles.builders import (
    assert_identical,
    assert_same,
    double_batch,
    double_net,
    finite_difference,
    gradient_of,
    image_batch,
    image_net,
    suited,
)
from tests.oracles.graph_nets import drawn_weights
from tests.oracles.products import Products

CLASSES = 4


@dataclass(frozen=True)
class Problem:
    """A kind of net with `CLASSES` outputs, and batches for it.

    Attributes:
        net: makes one, given the hidden activation, `seed`, `feedback` and `pool`.
        batches: makes a batch of n samples, given n and `seed`.
        reshaped: another shape that a sample may have for the same result.
    """

    net: Callable[..., dp.Net]
    batches: Callable[..., tuple[Tensor, Tensor]]
    reshaped: tuple[int, ...]

    def bound(self, method: dp.Method, *, seed: int = 0, **settings: Any) -> dp.Rule:
        """A rule of this method on a fresh net that fits it."""
        net = self.net(**suited(method, "tanh"), seed=seed, pool=method.pool)
        return method(net, **settings)

    def batch(self, n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
        return self.batches(n, seed=seed)


def dense_net(activation: str, *, seed: int, feedback: str, pool: str) -> dp.Net:
    return double_net((6, 7, 5, CLASSES), activation, seed=seed, feedback=feedback)


def conv_net(activation: str, *, seed: int, feedback: str, pool: str) -> dp.Net:
    """A convolution, one behind a max-pool or `pool`, a dense layer behind an average-pool, a dense layer."""
    synapses = [
        dp.Conv2d(2, 3, 3, padding=1),
        dp.Conv2d(3, 3, 3, padding=1, pool=dp.POOLS[pool](2), feedback=feedback),
        dp.Dense(3, 5, pool=dp.AvgPool2d(2), feedback=feedback),
        dp.Dense(5, CLASSES, feedback=feedback),
    ]
    return image_net(synapses, activation, seed=seed)


def skip_net(activation: str, *, seed: int, feedback: str, pool: str) -> dp.Net:
    """Several edges into one layer, one of them from the input, and a skip by the identity."""
    g, own = dp.Graph(), {"feedback": feedback}
    x = g.input("x")
    h = g.layer("h", {x: dp.Dense(6, 5)}, activation)
    i = g.layer("i", {h: dp.Dense(5, 5, **own), x: dp.Dense(6, 5, bias=False)}, activation)
    j = g.layer("j", {i: dp.Dense(5, 5, **own), h: dp.Identity()}, activation)
    return drawn_weights(g.net([g.layer("y", {j: dp.Dense(5, CLASSES, **own)}, "linear")]), seed=seed)


def tied_net(activation: str, *, seed: int, feedback: str, pool: str) -> dp.Net:
    """Every edge between layers in both directions, through the same weights."""
    net = dp.nets.hopfield_mlp([6, 7, 5, CLASSES], activation, strength=1.0, damping=0.0)
    net.tolerance = 1e-14
    return drawn_weights(net, seed=seed, scale=0.25)


PROBLEMS = {
    "dense": Problem(dense_net, lambda n, seed: double_batch(n, 6, CLASSES, seed=seed), (2, 3)),
    "skip": Problem(skip_net, lambda n, seed: double_batch(n, 6, CLASSES, seed=seed), (2, 3)),
    "tied": Problem(tied_net, lambda n, seed: double_batch(n, 6, CLASSES, seed=seed), (2, 3)),
    "conv": Problem(conv_net, lambda n, seed: image_batch(n, (2, 4, 4), CLASSES, seed=seed), (2, 4, 4)),
}


def suits(method: dp.Method, problem: str) -> bool:
    """Whether a method says that it runs on such nets."""
    if problem == "tied":
        return method.rule.cycles and method.feedback == "symmetric"
    return problem != "skip" or method.rule.graphs


Check = Callable[[dp.Method, Problem], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def without_noise(method: dp.Method) -> dp.Method:
    """The method without what different samples do to each other, for checks that compare different batches.

    That is random steps, and an end as soon as all have settled.
    """
    still: dict[str, float] = {"K": 0} if "K" in method.known_settings else {}  # the steps of dtp's feedback maps
    if method.rule is dp.RecurrentBackprop:
        still["tolerance"] = 1e-14
    return replace(method, settings={**method.settings, **still})


def parameters_of(rule: dp.Rule) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in rule.net.named_parameters()}


def tensors(value: Any, at: str = "") -> dict[str, Tensor]:
    """All tensors in nested containers, by where they are; everything else as it is."""
    if isinstance(value, Tensor):
        return {at: value.detach().clone()}
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        assert isinstance(value, int | float | str | bool | None), f"{at}: {type(value)} in a state_dict"
        return {at: torch.tensor(hash(value))}
    return {k: v for name, item in items for k, v in tensors(item, f"{at}/{name}").items()}


@contextmanager
def nothing_changes(rule: dp.Rule, *, but_grad: bool = False, but_state: bool = False) -> Iterator[None]:
    """Parameters, `.grad`, modes, the rule's state and torch's global state are as before, to the bit."""

    def world() -> dict[str, Any]:
        seen: dict[str, Any] = {
            "parameters": parameters_of(rule),
            "modes": [m.training for m in rule.net.modules()],
            "requires_grad": [p.requires_grad for p in rule.net.parameters()],
            "rng": torch.get_rng_state().clone(),
            "grad mode": torch.is_grad_enabled(),
            "default dtype": torch.get_default_dtype(),
            "autocast": torch.is_autocast_enabled("cpu"),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "threads": torch.get_num_threads(),
            "identity": [id(p) for p in rule.net.parameters()],
        }
        if not but_grad:
            seen["grad"] = {n: None if p.grad is None else p.grad.clone() for n, p in rule.net.named_parameters()}
        if not but_state:
            seen["state"] = tensors(rule.state_dict())
        return seen

    before = world()
    yield
    after = world()
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, dict):
            assert value.keys() == after[name].keys(), name
            for key, tensor in value.items():
                same = after[name][key] is tensor if tensor is None else torch.equal(after[name][key], tensor)
                assert same, f"{name} {key}"
        elif isinstance(value, Tensor):
            assert torch.equal(value, after[name]), name
        else:
            assert value == after[name], name


def train(rule: dp.Rule, on: Problem, steps: int, *, first: int = 0, optimizer: Any = None) -> list[Tensor]:
    """Some weight updates on changing batches, every fourth of them smaller; the losses."""
    optimizer = optimizer or torch.optim.Adam(rule.net.parameters(), lr=0.01)
    losses = []
    for number in range(first, first + steps):
        optimizer.zero_grad()
        for step in rule.iterate(*on.batch(3 if number % 4 == 3 else 6, seed=number)):
            optimizer.step()
            optimizer.zero_grad()
            losses.append(step.loss)
    return losses


@check
def yields_steps_with_loss_and_output(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    count = 0
    for step in rule.iterate(x, y):
        count += 1
        assert step.output.shape == (6, CLASSES)
        assert step.output.dtype == x.dtype
        assert step.loss.shape == ()
        assert torch.isfinite(step.loss)
        assert not step.loss.requires_grad
        assert not step.output.requires_grad
        target = rule.loss.encode(y, step.output.shape, x.dtype)
        torch.testing.assert_close(step.loss, rule.loss.value(step.output, target).mean())
    assert count >= 1


@check
def makes_the_products_that_it_says(method: dp.Method, on: Problem) -> None:
    """PyTorch was asked for all that is counted, and a step says no more of it than was made."""
    rule, (x, y) = on.bound(method), on.batch()
    said = 0
    with dp.counting() as counts, dp.counting(batch=len(x)) as copies, Products() as seen:
        for step in rule.iterate(x, y):
            said += step.products
    assert counts.total.products <= len(seen.made)  # a rule may make some without a synapse
    assert counts.total.multiply_adds <= sum(seen.made)
    assert 0 <= said <= max(len(seen.made), copies.total.products)


@check
def the_loop_body_runs_in_the_callers_modes(method: dp.Method, on: Problem) -> None:
    """A generator that yields inside no_grad or autocast would leak them to the caller's optimizer step."""
    rule, (x, y) = on.bound(method), on.batch()
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            for _ in rule.iterate(x, y):
                assert torch.is_grad_enabled() is enabled
                assert not torch.is_autocast_enabled("cpu")


@check
def gives_every_parameter_a_gradient(method: dp.Method, on: Problem) -> None:
    rule = on.bound(method)
    gradient = gradient_of(rule, *on.batch())
    for name, p in rule.net.named_parameters():
        assert gradient[name].shape == p.shape
        assert gradient[name].dtype == p.dtype
        assert torch.isfinite(gradient[name]).all()
        assert gradient[name].abs().max() > 0
        assert p.grad.is_leaf
        assert not p.grad.requires_grad


@check
def gradients_do_not_share_memory(method: dp.Method, on: Problem) -> None:
    """Clipping scales them in place, one after the other."""
    rule = on.bound(method)
    rule.backward(*on.batch())
    pointers = [p.grad.untyped_storage().data_ptr() for p in rule.net.parameters()]
    assert len(set(pointers)) == len(pointers)


@check
def points_downhill(method: dp.Method, on: Problem) -> None:
    """The last layer's gradient is near that of the rule's own predictions' loss, by finite differences.

    Below it a rule may have feedback of its own.
    """
    rule, (x, y) = on.bound(method), on.batch(40)
    ours = gradient_of(rule, x, y)
    target = rule.loss.encode(y, torch.Size((40, CLASSES)), x.dtype)

    def loss() -> float:
        return float(rule.loss.value(rule.predict(x), target).mean())

    last = [n for n in ours if n.startswith(f"layers.{len(rule.net) - 1}.") and not n.endswith("feedback")]
    truth = [finite_difference(loss, rule.net.get_parameter(n)) for n in last]
    u, v = torch.cat([ours[n].flatten() for n in last]), torch.cat(truth)
    assert float(u @ v / (u.norm() * v.norm())) > 0.9


@check
def learns(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch(20)
    optimizer = torch.optim.Adam(rule.net.parameters(), lr=0.02)
    first = float(rule.loss.value(rule.predict(x), torch.eye(CLASSES, dtype=x.dtype)[y]).mean())
    for _ in range(80):
        for _step in rule.iterate(x, y):
            optimizer.step()
            optimizer.zero_grad()
    last = float(rule.loss.value(rule.predict(x), torch.eye(CLASSES, dtype=x.dtype)[y]).mean())
    assert last < 0.5 * first


@check
def backward_adds_to_grad(method: dp.Method, on: Problem) -> None:
    (x, y), net = on.batch(), on.bound(method).net
    once = gradient_of(method(net), x, y)
    net.zero_grad(set_to_none=True)
    for _ in range(2):
        method(net).backward(x, y)
    assert_same({n: p.grad for n, p in net.named_parameters()}, {n: 2 * g for n, g in once.items()}, rtol=1e-13)
    net.zero_grad(set_to_none=False)
    method(net).backward(x, y)
    assert_identical({n: p.grad for n, p in net.named_parameters()}, once)


@check
def backward_is_the_first_round_of_iterate(method: dp.Method, on: Problem) -> None:
    x, y = on.batch()
    rule, other = on.bound(method), on.bound(method)
    step = rule.backward(x, y)
    first = next(iter(other.iterate(x, y)))
    assert torch.equal(step.output, first.output)
    assert torch.equal(step.loss, first.loss)
    assert_identical(
        {n: p.grad for n, p in rule.net.named_parameters()}, {n: p.grad for n, p in other.net.named_parameters()}
    )


@check
def backward_changes_only_grad_and_its_own_state(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    for mode in (True, False):
        rule.net.train(mode)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled), nothing_changes(rule, but_grad=True, but_state=True):
                rule.backward(x, y)
    for name, p in rule.net.named_parameters():
        assert p.grad is not None, name


@check
def leaves_the_batch_alone(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    target = torch.eye(CLASSES, dtype=x.dtype)[y]
    x.requires_grad_()
    target.requires_grad_()
    before = x.detach().clone(), target.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "T1=")  # not every net here settles in a rule's default steps
        for _ in rule.iterate(x, target):
            pass
    assert x.requires_grad
    assert x.grad is None
    assert target.requires_grad
    assert target.grad is None
    assert torch.equal(x, before[0])
    assert torch.equal(target, before[1])


@check
def frozen_parameters_get_no_gradient(method: dp.Method, on: Problem) -> None:
    x, y = on.batch()
    full = gradient_of(on.bound(method), x, y)
    for frozen in full:
        rule = on.bound(method)
        rule.net.get_parameter(frozen).requires_grad_(False)
        gradient = gradient_of(rule, x, y)
        assert frozen not in gradient
        assert_same(gradient, {n: g for n, g in full.items() if n != frozen})


@check
def a_net_that_is_frozen_altogether_still_gives_its_step(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    expected = on.bound(method).backward(x, y)
    rule.net.requires_grad_(False)
    step = rule.backward(x, y)
    torch.testing.assert_close(step.loss, expected.loss)
    assert all(p.grad is None for p in rule.net.parameters())


@check
def duplicating_every_sample_changes_no_gradient(method: dp.Method, on: Problem) -> None:
    """A nudge belongs to a sample: it does not depend on how many others share the batch."""
    method = without_noise(method)
    net = on.bound(method).net
    for loss in dp.LOSSES:
        for n, copies in ((1, 2), (3, 4)):
            x, y = on.batch(n)
            once = gradient_of(method(net, loss=loss), x, y)
            often = gradient_of(method(net, loss=loss), torch.cat([x] * copies), y.repeat(copies))
            assert_same(often, once, rtol=1e-11)


@check
def parts_of_a_batch_average_to_the_whole(method: dp.Method, on: Problem) -> None:
    """By their sizes."""
    method = without_noise(method)
    net, (x, y) = on.bound(method).net, on.batch()
    for loss in dp.LOSSES:
        whole = gradient_of(method(net, loss=loss), x, y)
        for sizes in ((1,) * 6, (3, 2, 1)):
            batches = zip(x.split(sizes), y.split(sizes), strict=True)
            parts = [gradient_of(method(net, loss=loss), *batch) for batch in batches]
            mean = {n: sum(g[n] * size / 6 for g, size in zip(parts, sizes, strict=True)) for n in whole}
            assert_same(mean, whole, rtol=1e-11)


@check
def the_order_of_samples_does_not_matter(method: dp.Method, on: Problem) -> None:
    method = without_noise(method)
    net, (x, y) = on.bound(method).net, on.batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert_same(gradient_of(method(net), x[order], y[order]), gradient_of(method(net), x, y), rtol=1e-11)


@check
def class_indices_and_their_one_hot_rows_are_one_target(method: dp.Method, on: Problem) -> None:
    net, (x, y) = on.bound(method).net, on.batch()
    for dtype in (torch.float64, torch.float32):
        rows = torch.eye(CLASSES, dtype=dtype)[y]
        assert_identical(gradient_of(method(net), x, rows), gradient_of(method(net), x, y))


@check
def takes_inputs_of_any_shape_and_stride(method: dp.Method, on: Problem) -> None:
    net, (x, y) = on.bound(method).net, on.batch()
    flat = gradient_of(method(net), x, y)
    assert_same(gradient_of(method(net), x.reshape(6, *on.reshaped), y), flat, rtol=1e-12)
    assert_same(gradient_of(method(net), x.transpose(0, -1).contiguous().transpose(0, -1), y), flat, rtol=1e-12)
    strided = torch.stack([x, x], 1)[:, 0]
    assert_same(gradient_of(method(net), strided, y), flat, rtol=1e-12)


@check
def every_named_loss_works(method: dp.Method, on: Problem) -> None:
    x, y = on.batch()
    for loss in dp.LOSSES:
        gradient = gradient_of(on.bound(method, loss=loss), x, y)
        assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in gradient.values()), loss


LARGE = {"gamma": 0.3}
"""Settings under which differences are not lost in float32: at layer k CHL's are γ^{L-k} of the states."""


@check
def single_precision_agrees_with_double(method: dp.Method, on: Problem) -> None:
    x, y = on.batch()
    settings = {name: value for name, value in LARGE.items() if name in method.known_settings}
    rule = on.bound(method, **settings)
    double = gradient_of(rule, x, y)
    single = gradient_of(method(rule.net.float(), **settings), x.float(), y)
    for name, g in single.items():
        assert g.dtype == torch.float32
        error = float((g.double() - double[name]).norm() / double[name].norm())
        assert error < 1e-3, name


@check
def memory_that_is_used_again_changes_no_bit(method: dp.Method, on: Problem) -> None:
    runs = []
    for least in (1, 2**62):  # all results are put there, none is
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(arena, "LEAST", least)
            for dtype, low in ((torch.float64, False), (torch.float32, False), (torch.float32, True)):
                rule = on.bound(method)
                rule.net.to(dtype)
                with torch.autocast("cpu", torch.bfloat16, enabled=low):
                    said = train(
                        rule, replace(on, batches=lambda n, seed, dtype=dtype: cast(on, n, seed, dtype)), 3
                    )
                runs.append((said, parameters_of(rule), tensors(rule.state_dict())))
    half = len(runs) // 2
    for (said, parameters, state), (other, *others) in zip(runs[:half], runs[half:], strict=True):
        assert all(map(torch.equal, said, other))
        assert_identical(parameters, others[0])
        assert_identical(state, others[1])


def cast(on: Problem, n: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A batch whose samples have this type."""
    x, y = on.batches(n, seed=seed)
    return x.to(dtype), y


@check
def the_same_seed_gives_the_same_run(method: dp.Method, on: Problem) -> None:
    runs = []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)  # a rule's randomness is its own
        rule = on.bound(method)
        runs.append((train(rule, on, 5), parameters_of(rule)))
    assert len(runs[0][0]) >= 5
    assert all(torch.equal(a, b) for a, b in zip(runs[0][0], runs[1][0], strict=True))
    assert_identical(runs[0][1], runs[1][1])


@check
def its_state_goes_through_a_file_and_the_run_goes_on_bit_exactly(method: dp.Method, on: Problem) -> None:
    whole = on.bound(method)
    optimizer = torch.optim.Adam(whole.net.parameters(), lr=0.01)
    train(whole, on, 6, optimizer=optimizer)
    file = io.BytesIO()
    torch.save([whole.net.state_dict(), optimizer.state_dict(), whole.state_dict()], file)
    file.seek(0)
    train(whole, on, 6, first=6, optimizer=optimizer)

    net_state, optimizer_state, rule_state = torch.load(file, weights_only=True)
    resumed = on.bound(method, seed=5)
    resumed.net.load_state_dict(net_state)
    second = torch.optim.Adam(resumed.net.parameters(), lr=0.01)
    second.load_state_dict(optimizer_state)
    resumed.load_state_dict(rule_state)
    train(resumed, on, 6, first=6, optimizer=second)
    assert_identical(parameters_of(resumed), parameters_of(whole))
    assert_identical(tensors(resumed.state_dict()), tensors(whole.state_dict()))


@check
def a_state_dict_is_a_snapshot(method: dp.Method, on: Problem) -> None:
    rule = on.bound(method)
    train(rule, on, 2)
    kept = rule.state_dict()
    before = tensors(kept)
    train(rule, on, 3, first=2)
    assert_identical(tensors(kept), before)
    rule.load_state_dict(kept)
    assert_identical(tensors(rule.state_dict()), before)
    train(rule, on, 3, first=2)
    assert_identical(tensors(kept), before)


@check
def refuses_the_state_of_another_rule(method: dp.Method, on: Problem) -> None:
    rule = on.bound(method)
    train(rule, on, 2)
    with nothing_changes(rule), pytest.raises(dp.DualpropError, match="state") as caught:
        rule.load_state_dict({**rule.state_dict(), "bogus": torch.zeros(1)})
    assert "\n" not in str(caught.value)


@check
def predict_and_gradients_and_alignment_touch_nothing(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    train(rule, on, 3)
    rule.backward(x, y)
    with nothing_changes(rule):
        output = rule.predict(x)
        gradients = rule.gradients(x, y)
        alignment = dp.alignment(rule, x, y)
    assert output.shape == (6, CLASSES)
    assert not output.requires_grad
    assert torch.equal(output, rule.predict(x))
    assert_identical(gradients, gradient_of(rule, x, y))  # what the next backward adds
    if rule.net.wiring.cyclic:
        assert alignment.cosine is alignment.norm_ratio is None
    else:
        assert len(alignment.cosine) == len(alignment.norm_ratio) == len(rule.net)
        assert all(-1 - 1e-12 <= c <= 1 + 1e-12 for c in alignment.cosine)
        assert all(r > 0 for r in alignment.norm_ratio)


@check
def two_rules_on_one_net_do_not_disturb_each_other(method: dp.Method, on: Problem) -> None:
    alone, net = on.bound(method), on.bound(method).net
    first, second = method(net), method(net)
    for seed in range(3):
        x, y = on.batch(seed=seed)
        expected = gradient_of(alone, x, y)
        assert_identical(gradient_of(first, x, y), expected)
        assert_identical(gradient_of(second, x, y), expected)


@check
def sees_weights_that_changed_since_the_last_call(method: dp.Method, on: Problem) -> None:
    x, y = on.batch()
    rule = on.bound(method)
    gradient_of(rule, x, y)
    with torch.no_grad():
        for p in rule.net.parameters():
            p.mul_(1.5)
    fresh = on.bound(method)
    with torch.no_grad():
        for p in fresh.net.parameters():
            p.mul_(1.5)
    fresh.load_state_dict(copy.deepcopy(rule.state_dict()))
    assert_identical(gradient_of(rule, x, y), gradient_of(fresh, x, y))


BAD_BATCHES: dict[str, tuple[Callable[[Tensor, Tensor], tuple[Any, Any]], str]] = {
    "nan in x": (lambda x, y: (x.index_fill(0, torch.tensor([2]), float("nan")), y), "x"),
    "infinite x": (lambda x, y: (x.index_fill(0, torch.tensor([2]), float("-inf")), y), "x"),
    "too few features": (lambda x, y: (x[:, 1:], y), "x"),
    "too many features": (lambda x, y: (torch.cat([x, x], 1), y), "x"),
    "x of another precision": (lambda x, y: (x.float(), y), "x"),
    "x of integers": (lambda x, y: (x.long(), y), "x"),
    "x not a tensor": (lambda x, y: (x.numpy(), y), "x"),
    "no samples": (lambda x, y: (x[:0], y[:0]), "x"),
    "x without a batch": (lambda x, y: (x[0], y[:1]), "x"),
    "x without dimensions": (lambda x, y: (x.flatten()[0], y[:1]), "x"),
    "class too high": (lambda x, y: (x, y.index_fill(0, torch.tensor([1]), CLASSES)), "y"),
    "class negative": (lambda x, y: (x, y.index_fill(0, torch.tensor([1]), -1)), "y"),
    "too few targets": (lambda x, y: (x, y[1:]), "y"),
    "no targets": (lambda x, y: (x, y[:0]), "y"),
    "a column of classes": (lambda x, y: (x, y[:, None]), "y"),
    "classes in int32": (lambda x, y: (x, y.int()), "y"),
    "boolean targets": (lambda x, y: (x, y > 0), "y"),
    "complex targets": (lambda x, y: (x, torch.zeros(6, CLASSES, dtype=torch.complex128)), "y"),
    "y not a tensor": (lambda x, y: (x, y.tolist()), "y"),
    "classes as floats": (lambda x, y: (x, y.double()), "y"),
    "float targets too wide": (lambda x, y: (x, torch.zeros(6, CLASSES + 1, dtype=x.dtype)), "y"),
    "one target for all": (lambda x, y: (x, torch.zeros(1, CLASSES, dtype=x.dtype)), "y"),
    "nan in targets": (lambda x, y: (x, torch.full((6, CLASSES), float("nan"), dtype=x.dtype)), "y"),
    "infinite targets": (lambda x, y: (x, torch.full((6, CLASSES), float("inf"), dtype=x.dtype)), "y"),
}


@check
def refuses_bad_batches_and_touches_nothing(method: dp.Method, on: Problem) -> None:
    rule, (x, y) = on.bound(method), on.batch()
    train(rule, on, 2)
    rule.backward(x, y)
    for name, (spoil, argument) in BAD_BATCHES.items():
        spoilt = spoil(x, y)
        acts: list[Callable[[], object]] = [
            lambda: rule.backward(*spoilt),  # noqa: B023 - called at once
            lambda: rule.iterate(*spoilt),  # noqa: B023 - complains when called, not later
            lambda: rule.gradients(*spoilt),  # noqa: B023
        ]
        if argument == "x":
            acts.append(lambda: rule.predict(spoilt[0]))  # noqa: B023
        for act in acts:
            with nothing_changes(rule):
                caught: Exception | None = None
                try:
                    act()
                except Exception as error:
                    caught = error
            assert isinstance(caught, dp.DualpropError), f"{name}: {caught!r}"
            by_edge = () if rule.net.wiring.is_chain else (f"net: edge {argument} -> ",)  # into which layer
            assert str(caught).startswith((f"{argument}:", f"{argument}=", *by_edge)), f"{name}: {caught}"
            assert "\n" not in str(caught), name


@check
def refuses_settings_that_it_does_not_have(method: dp.Method, on: Problem) -> None:
    net = on.bound(method).net
    with pytest.raises(dp.DualpropError, match="foo") as caught:
        method(net, foo=1)
    assert "loss" in str(caught.value)  # it says which it has
    assert "\n" not in str(caught.value)


@check
def refuses_what_is_not_a_net(method: dp.Method, on: Problem) -> None:
    with pytest.raises(dp.DualpropError, match=r"^net") as caught:
        method(torch.nn.Linear(6, 4))
    assert "\n" not in str(caught.value)


@check
def is_described_in_one_line(method: dp.Method, on: Problem) -> None:
    assert method.summary.strip()
    assert "\n" not in method.summary
    assert (method.rule.__doc__ or "").strip()
