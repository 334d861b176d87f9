"""From a rule's second batch on, calls are bound to memory that stays: nobody can tell but by a clock."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import dualprop as dp
from dualprop.engines.dyads.fixed import Fixed
from dualprop.nets.counting import counting
from tests.slow import but_slow

DUAL_PROP = [name for name, method in dp.RULES.items() if issubclass(method.rule, dp.DualProp)]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Fixed]:
    """Every run in memory that stays."""
    made, run = list[Fixed](), Fixed.run

    def counted(self: Fixed, *args: object) -> None:
        made.append(self)
        run(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Fixed, "run", counted)
    return made


def rule_of(name: str = "dp", potential: str = "relu", **settings: object) -> dp.Rule:
    """A rule on a net of float32, as users have it."""
    torch.manual_seed(1)
    net = dp.nets.mlp([6, 9, 7, 3], potential, feedback=dp.RULES[name].feedback)
    return dp.RULES[name](net, **settings)


def batch(samples: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, 6, generator=generator), torch.randint(3, (samples,), generator=generator)


def gradients(rule: dp.Rule, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Those of `backward`, with all hooks."""
    rule.net.zero_grad()
    rule.backward(x, y)
    return {name: p.grad for name, p in rule.net.named_parameters() if p.grad is not None}


def assert_same(rule: dp.Rule, x: Tensor, y: Tensor, runs: list[Fixed], *, fixed: bool | None) -> None:
    """The gradients of the next batch are to the bit those of a rule whose first it is."""
    expected = gradients(copy.deepcopy(rule, {id(rule.net): rule.net}), x, y)
    before = len(runs)
    ours = gradients(rule, x, y)
    if fixed is not None:
        assert (len(runs) > before) is fixed
    assert ours.keys() == expected.keys()
    for name in ours:
        assert torch.equal(ours[name], expected[name]), name


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("alpha", but_slow([0.3, 0.5], 0.3))
@pytest.mark.parametrize("loss", sorted(dp.LOSSES))
@pytest.mark.parametrize("potential", sorted(dp.POTENTIALS))
def test_every_potential_and_loss(potential: str, loss: str, alpha: float, low: bool, runs: list[Fixed]) -> None:
    rule = rule_of("dp", potential, loss=loss, beta=0.7, alpha=alpha)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        rule.backward(*batch())
        for seed in range(2):
            assert_same(rule, *batch(seed=seed), runs, fixed=True)


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", DUAL_PROP)
def test_every_rule_while_its_weights_move(name: str, low: bool, runs: list[Fixed]) -> None:
    rule = rule_of(name)
    optimizer = torch.optim.SGD(rule.net.parameters(), lr=0.01)
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        for n, samples in enumerate((5, 5, 3, 5, 3, 5)):
            assert_same(
                rule, *batch(samples, n), runs, fixed=None if name in ("r-dp", "l-dp") else n not in (0, 2)
            )
            for _ in rule.iterate(*batch(samples, n)):
                optimizer.step()
    assert runs or name == "r-dp"  # which draws another order every time


@pytest.mark.filterwarnings("ignore:schedule")  # not every order here lets every layer learn
@pytest.mark.parametrize(
    "schedule", [dp.Sweep(3), dp.Parallel(3), dp.Random([3, 2, 1, 3, 2]), dp.Random([2, 1, 3])], ids=str
)
def test_orders_that_begin_with_states_at_zero(schedule: dp.Schedule, runs: list[Fixed]) -> None:
    rule = rule_of("dp", "tanh", schedule=schedule)
    rule.backward(*batch())
    for seed in range(2):
        assert_same(rule, *batch(seed=seed), runs, fixed=True)


def test_gradients_add_up_and_stay_the_caller_s(runs: list[Fixed]) -> None:
    rule = rule_of()
    first = rule.backward(*batch(seed=1))
    kept = {name: p.grad for name, p in rule.net.named_parameters()}
    said, loss, one = first.output.clone(), first.loss.clone(), {name: g.clone() for name, g in kept.items()}
    second = rule.backward(*batch(seed=2))
    other = rule.gradients(*batch(seed=2))
    output = second.output.clone()
    for name, p in rule.net.named_parameters():
        assert p.grad is kept[name]
        torch.testing.assert_close(p.grad, one[name] + other[name], rtol=1e-6, atol=1e-7)
    rule.net.zero_grad()
    own = rule.gradients(*batch(seed=3))
    before = {name: g.clone() for name, g in own.items()}
    rule.backward(*batch(seed=4))
    assert len(runs) == 4
    assert all(torch.equal(own[name], before[name]) for name in own)
    assert torch.equal(first.output, said)
    assert torch.equal(first.loss, loss)
    assert torch.equal(second.output, output)


def test_products_are_counted_as_before(runs: list[Fixed]) -> None:
    rule, counted = rule_of(), []
    steps = [rule.backward(*batch()) for _ in range(3)]
    assert len({step.products for step in steps}) == 1
    for _ in range(2):
        with counting() as counts:
            rule.backward(*batch())
        counted.append((counts.forward.products, counts.feedback.products, counts.gradient.products))
    assert counted == [(3, 2, 3)] * 2


def _replace(net: dp.Net) -> None:
    net.chain[1].synapse.weight = nn.Parameter(torch.randn(7, 9))


def _move(net: dp.Net) -> None:
    W = net.chain[1].synapse.weight
    W.data = torch.randn(7, 9)


def _turn(net: dp.Net) -> None:
    W = net.chain[1].synapse.weight
    W.data = torch.randn(9, 7).t()


def _load(net: dp.Net) -> None:
    net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})


def _freeze(net: dp.Net) -> None:
    net.chain[0].synapse.weight.requires_grad_(False)


def _freeze_bias(net: dp.Net) -> None:
    net.chain[0].synapse.bias.requires_grad_(False)


def _hook(net: dp.Net) -> None:
    net.chain[2].synapse.weight.register_hook(lambda g: 2 * g)


def _hook_after(net: dp.Net) -> None:
    net.chain[2].synapse.bias.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(2))


def _normalise(net: dp.Net) -> None:
    parametrizations.weight_norm(net.chain[1].synapse)


def _prune(net: dp.Net) -> None:
    prune.l1_unstructured(net.chain[1].synapse, "weight", 0.5)


def _share(net: dp.Net) -> None:
    net.chain[0].synapse.bias = nn.Parameter(torch.zeros(9))
    net.chain[1].synapse.bias = net.chain[2].synapse.bias = None


def _other_potential(net: dp.Net) -> None:
    net.chain[0].potential = dp.POTENTIALS["tanh"]


def _other_synapse(net: dp.Net) -> None:
    net.chain[1].synapse = dp.Dense(9, 7, bias=False)


CHANGES: dict[str, tuple[Callable[[dp.Net], None], bool]] = {
    "another parameter": (_replace, True),
    "other memory": (_move, True),
    "memory that lies otherwise": (_turn, False),
    "loaded in place": (_load, True),
    "a frozen weight": (_freeze, False),
    "a frozen bias": (_freeze_bias, True),
    "a hook on the gradient": (_hook, False),
    "a hook behind it": (_hook_after, False),
    "weights that are computed": (_normalise, False),
    "weights that are masked": (_prune, False),
    "no biases": (_share, True),
    "another potential": (_other_potential, True),
    "another synapse": (_other_synapse, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_between_batches_counts(change: str, runs: list[Fixed]) -> None:
    rule, (act, fixed) = rule_of(), CHANGES[change]
    for _ in range(2):
        rule.backward(*batch())
    act(rule.net)
    assert_same(rule, *batch(), runs, fixed=None)  # of its kind it may be the first
    assert_same(rule, *batch(), runs, fixed=fixed)


def test_another_type_and_autocast(runs: list[Fixed]) -> None:
    rule, (x, y) = rule_of(), batch()
    for _ in range(2):
        rule.backward(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        for n in range(2):
            assert_same(rule, x, y, runs, fixed=n > 0)
    assert_same(rule, x, y, runs, fixed=True)
    rule.net.double()
    for n in range(2):
        assert_same(rule, x.double(), y, runs, fixed=n > 0)


def test_inputs_that_lie_otherwise_have_their_own_products(runs: list[Fixed]) -> None:
    rule, (x, y) = rule_of(), batch()
    for _ in range(2):
        rule.backward(x, y)
    assert_same(rule, x.t().contiguous().t(), y, runs, fixed=False)


def test_states_that_a_lazy_rule_has_kept_are_no_memory_that_stays(runs: list[Fixed]) -> None:
    rule = rule_of("l-dp")
    for seed in range(3):
        rule.backward(*batch(seed=seed))
    kept = rule.state_dict()
    copies = copy.deepcopy(kept)
    rule.backward(*batch(seed=3))
    assert runs
    for ours, before in zip(kept["means"], copies["means"], strict=True):
        assert torch.equal(ours, before)


def test_large_states_are_left_alone(monkeypatch: pytest.MonkeyPatch, runs: list[Fixed]) -> None:
    monkeypatch.setattr("dualprop.nets.kernels.blockwise.BLOCK", 40)
    rule = rule_of()
    for _ in range(3):
        rule.backward(*batch())
    assert not runs


def test_shapes_come_and_go(runs: list[Fixed]) -> None:
    rule = rule_of()
    for samples in (*range(1, 21), *range(1, 21)):
        rule.backward(*batch(samples))
    assert not runs  # what comes back so late is not waited for
    (inference,) = rule._idle
    assert len(inference._memories.kept) <= 8
    for n in range(2):
        assert_same(rule, *batch(2), runs, fixed=n > 0)


def test_inference_mode_leaves_nothing_behind(runs: list[Fixed]) -> None:
    rule, (x, y) = rule_of(), batch()
    for mode in (torch.no_grad, torch.inference_mode, torch.inference_mode, torch.enable_grad):
        with mode():
            rule.backward(x, y)
            rule.gradients(x, y)
    once = rule.gradients(x, y)
    assert runs
    for name, p in rule.net.named_parameters():
        assert not p.grad.is_inference()
        torch.testing.assert_close(p.grad, 4 * once[name])


def test_an_error_leaves_the_next_batch_alone(runs: list[Fixed], monkeypatch: pytest.MonkeyPatch) -> None:
    rule, (x, y) = rule_of(), batch()
    for _ in range(2):
        rule.backward(x, y)
    expected = rule.gradients(x, y)

    def fails(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(rule.loss), "output_step", fails)
        with pytest.raises(KeyboardInterrupt):
            rule.backward(x, y)
    ours = rule.gradients(x, y)
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
