"""What pictures of dyads and alignments show is what the states and the gradients are."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dualprop as dp


@pytest.fixture
def batch():
    return torch.randn(5, 4), torch.arange(5) % 3


def heights(bars):
    return [bar.get_height() for bar in bars.patches]


def test_every_neuron_of_a_sample_is_drawn_with_both_states(batch):
    rule = dp.DualProp(dp.nets.mlp([4, 8, 3]))
    state = rule.infer(*batch)
    figure = dp.plot_dyads(state, sample=2)
    assert len(figure.axes) == 4
    for k, states, errors in ((1, figure.axes[0], figure.axes[2]), (2, figure.axes[1], figure.axes[3])):
        minus, plus = states.lines
        assert plus.get_ydata() == pytest.approx(state.plus[k][2].tolist())
        assert minus.get_ydata() == pytest.approx(state.minus[k][2].tolist())
        assert heights(errors) == pytest.approx((state.plus[k] - state.minus[k])[2].tolist(), abs=1e-6)


def test_of_many_neurons_64_are_drawn_the_first_and_the_last_among_them(batch):
    state = dp.DualProp(dp.nets.mlp([4, 200, 3])).infer(*batch)
    axes = dp.plot_dyads(state).axes
    assert len(heights(axes[2])) == 64
    ends = [heights(axes[2])[place] for place in (0, -1)]
    assert ends == pytest.approx(state.difference[1][0][[0, -1]].tolist(), abs=1e-6)
    assert axes[2].get_xlabel() == "64 of 200"


def test_a_sample_that_the_batch_does_not_have(batch):
    state = dp.DualProp(dp.nets.mlp([4, 8, 3])).infer(*batch)
    with pytest.raises(dp.DualpropError, match="sample=5: the batch has 5, from 0 to 4"):
        dp.plot_dyads(state, 5)


def test_alignments_are_drawn_layer_by_layer(batch):
    net = dp.nets.mlp([4, 8, 6, 3])
    named = {name: dp.alignment(dp.DualProp(net, beta=beta), *batch) for name, beta in (("a", 0.1), ("b", 1.0))}
    cosine, ratio = dp.plot_alignment(named).axes
    for axes, values in ((cosine, "cosine"), (ratio, "norm_ratio")):
        assert [line.get_label() for line in axes.lines] == ["a", "b"]
        for line, alignment in zip(axes.lines, named.values(), strict=True):
            assert line.get_ydata() == pytest.approx(getattr(alignment, values))


def test_that_of_a_converted_module_by_its_names(batch):
    model = dp.convert(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    found = dp.alignment(model, F.cross_entropy, *batch)
    cosine, _ = dp.plot_alignment(found).axes
    assert [label.get_text() for label in cosine.get_xticklabels()] == ["0", "2"]
    assert cosine.lines[0].get_ydata() == pytest.approx(list(found.cosine.values()))


def test_on_a_net_with_cycles_the_cosine_is_to_the_rules_own(batch):
    net = dp.nets.hopfield_mlp([4, 8, 3])
    found = dp.alignment(dp.DualProp(net, schedule=dp.Sweep(200, tolerance=1e-5, damping=0.5)), *batch)
    cosine, ratio = dp.plot_alignment(found).axes
    assert cosine.lines[0].get_ydata() == pytest.approx(found.own)
    assert not ratio.lines
    assert cosine.get_ylabel() == "cosine to the rule's own"


@pytest.mark.parametrize("wrong", [{}, 3, {"a": 3}])
def test_what_is_no_alignment_is_refused(wrong):
    with pytest.raises(dp.DualpropError, match=r"alignments.*(none|a table of a dualprop\.Alignment)"):
        dp.plot_alignment(wrong)


def test_a_notebook_shows_them(batch):
    figure = dp.plot_dyads(dp.DualProp(dp.nets.mlp([4, 8, 3])).infer(*batch))
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_states_say_how_large_activities_and_errors_are(batch):
    state = dp.DualProp(dp.nets.mlp([4, 8, 3])).infer(*batch)
    head, columns, *rows = repr(state).splitlines()
    assert head == "DyadicState of 5 samples, share 0.5"
    assert columns.split() == ["layer", "shape", "rms", "of", "the", "mean", "of", "the", "difference"]
    for k, row in enumerate(rows):
        name, _, mean, difference = row.split()
        assert name == ("x", "layer1", "layer2")[k]
        assert float(mean) == pytest.approx(math.sqrt(float((state.mean[k] ** 2).mean())), rel=5e-3)
        assert float(difference) == pytest.approx(math.sqrt(float((state.difference[k] ** 2).mean())), rel=5e-3)
    assert state._repr_html_().count("<tr>") == 1 + len(rows)


def test_a_step_says_its_numbers_and_no_tensors(batch):
    step = dp.DualProp(dp.nets.mlp([4, 8, 3])).backward(*batch)
    assert repr(step) == f"Step(loss={float(step.loss):.4g}, output=(5, 3), products={step.products})"
