"""Images under bfloat16 autocast with channels last in memory; compiled block updates."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

import dualprop as dp
from dualprop.engines.dyads.binding import Binding
from dualprop.nets.kernels import products
from dualprop.rules.relaxing import Relaxing
from tests.oracles.builders import assert_identical, gradient_of, suited

LAST = torch.channels_last
DUAL_PROP = [name for name, method in dp.RULES.items() if issubclass(method.rule, dp.DualProp)]
RELAXING = [name for name, method in dp.RULES.items() if issubclass(method.rule, Relaxing)]
"""Rules whose differences, at the bottom of a deep net, are smaller than the rounding of states to bf16."""
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def problem(name: str = "dp") -> tuple[dp.Net, torch.Tensor, torch.Tensor]:
    """3 x 8 x 8 images; behind the pools 64 channels on 4 x 4 and on 2 x 2, whose gradients go over patches."""
    method, generator = dp.RULES[name], torch.Generator().manual_seed(0)
    options = {**suited(method), "pool": method.pool, "generator": generator}
    net = dp.nets.vgg([[8], [64], [64, 64]], [16], 5, (3, 8, 8), **options)
    x = torch.randn(8, 3, 8, 8, generator=generator).to(memory_format=LAST)
    return net.to(memory_format=LAST), x, torch.randint(5, (8,), generator=generator)


def bf16():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", [n for n in dp.RULES if n not in RELAXING and n != "pc-ep"])
def test_the_gradient_is_close_to_that_of_single_precision(name):
    net, x, y = problem(name)
    full = gradient_of(dp.RULES[name](net, loss="cross_entropy"), x, y)
    with bf16():
        half = gradient_of(dp.RULES[name](net, loss="cross_entropy"), x, y)
    assert half.keys() == full.keys()
    for parameter, g in half.items():
        assert g.dtype == torch.float32
        assert g.stride() == net.get_parameter(parameter).stride()
        assert float(torch.cosine_similarity(g.flatten(), full[parameter].flatten(), dim=0)) > 0.97, parameter
        assert float(g.norm() / full[parameter].norm()) == pytest.approx(1, abs=0.1), parameter
    assert any(not torch.equal(half[n], full[n]) for n in full)  # the products were made in bf16


@pytest.mark.parametrize("name", DUAL_PROP)
def test_everything_stays_channels_last_and_the_small_maps_go_over_patches(name, monkeypatch):
    net, x, y = problem(name)
    seen: list[torch.Tensor] = []
    updating, unfold, unfolded = Binding._updating, products._patches, []

    def watched(self, update):
        call, n = updating(self, update), self._neurons[update.number]

        def then():
            call()
            around = n.mean, n.difference, n.total, n.pull, *(n.states or ())
            seen.extend(t for t in around if t is not None and t.ndim == 4)

        return then

    def counted(*args):
        unfolded.append(args[0])
        return unfold(*args)

    monkeypatch.setattr(Binding, "_updating", watched)
    monkeypatch.setattr(products, "_patches", counted)
    rule = dp.RULES[name](net, loss="cross_entropy")
    with bf16():
        state = rule.infer(x, y)
        for _ in rule.iterate(x, y):
            pass
    assert len(seen) > 12
    assert unfolded
    assert all(t.is_contiguous(memory_format=LAST) for t in (*seen, *unfolded))
    states = [*state.plus, *state.minus, *state.mean, *state.difference]
    assert all(z.is_contiguous(memory_format=LAST) for z in states if z.ndim == 4)
    assert {z.dtype for z in states} == {torch.float32}


def test_predictive_coding_works_in_full_all_the_same():
    net, x, y = problem("pc-ep")
    full = gradient_of(dp.RULES["pc-ep"](net, loss="cross_entropy"), x, y)
    with bf16():
        half = gradient_of(dp.RULES["pc-ep"](net, loss="cross_entropy"), x, y)
    assert_identical(half, full)


@pytest.mark.parametrize("name", RELAXING)
def test_a_relaxing_rule_learns_its_last_layer_in_bf16_too(name):
    net, x, y = problem(name)
    full = gradient_of(dp.RULES[name](net, loss="cross_entropy"), x, y)
    with bf16():
        half = gradient_of(dp.RULES[name](net, loss="cross_entropy"), x, y)
    for parameter, g in half.items():
        assert g.dtype == torch.float32
        assert g.stride() == net.get_parameter(parameter).stride()
        if parameter.startswith(f"layers.{len(net) - 1}."):
            assert float(torch.cosine_similarity(g.flatten(), full[parameter].flatten(), dim=0)) > 0.97, parameter
    assert any(not torch.equal(half[n], full[n]) for n in full)


def test_weights_that_change_inside_one_context_are_seen():
    net, x, y = problem()
    rule = dp.DualProp(net)
    with bf16():
        before = gradient_of(rule, x, y)
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(0.5)
        ours = gradient_of(rule, x, y)
    with bf16():
        theirs = gradient_of(dp.DualProp(net), x, y)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert any(not torch.equal(before[n], ours[n]) for n in ours)


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler")
def test_compiled_block_updates_give_the_same_gradients():
    net = dp.nets.vgg([[4], [6]], [], 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    x, y = torch.randn(4, 2, 8, 8), torch.tensor([0, 1, 2, 0])
    rule = dp.DualProp(net, alpha=0.25, beta=0.5)
    expected = gradient_of(rule, x, y)
    rule.compile()
    for name, g in gradient_of(rule, x, y).items():
        torch.testing.assert_close(g, expected[name], rtol=1e-5, atol=1e-6 * float(expected[name].abs().max()))
