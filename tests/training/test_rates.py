"""Learning rates: by layer, and along a cosine that ends where it is told to."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from dualprop import Settings, train
from dualprop.errors import DualpropError
from dualprop.runs.folder import Run
from dualprop.training.experiment import build
from dualprop.training.optim.optimizers import LR_SCHEDULES, layer_factors

FACTORS = (1.0, 0.5, 0.125)


def first_steps(settings, count=1):
    """The change of every parameter in the trainer's first steps, in double precision."""
    e = build(settings)
    net = e.trainer.net
    before = {name: p.detach().double().clone() for name, p in net.named_parameters()}
    for x, y in islice(e.trainer.data, count):
        e.trainer.learn(x, y)
    return {name: p.detach().double() - before[name] for name, p in net.named_parameters()}


@pytest.mark.parametrize("rule", ["bp", "dp", "kp-dp"])
@pytest.mark.parametrize("fused_update", [False, True])
def test_a_layer_s_first_step_is_its_factor_times_the_plain_one(rule, fused_update, quick):
    """Descent without momentum from the same weights: W, b and B of layer k change by factor k times as much."""
    settings = replace(quick, rule=rule, optimizer="sgd", momentum=0.0, lr=0.5, fused_update=fused_update)
    plain = first_steps(settings)
    scaled = first_steps(replace(settings, lr_factors=FACTORS))
    assert len(plain) == (8 if rule == "kp-dp" else 6)
    for name, change in plain.items():
        factor = FACTORS[int(name.split(".")[1])]
        assert float(change.abs().max()) > 1e-4
        torch.testing.assert_close(scaled[name], factor * change, rtol=1e-4, atol=1e-7)


def test_factors_reach_adam_and_every_later_step(quick):
    """The first steps of Adam are lr·sign(gradient): each layer's largest change is its own learning rate."""
    changes = first_steps(replace(quick, rule="bp", lr=0.01, lr_factors=FACTORS))
    for name, change in changes.items():
        assert float(change.abs().max()) == pytest.approx(0.01 * FACTORS[int(name.split(".")[1])], rel=1e-3)
    e = build(replace(quick, lr=0.25, lr_factors=FACTORS))
    e.trainer.learn(*next(iter(e.trainer.data)))
    assert {group["lr"] for group in e.trainer.optimizer.param_groups} == {0.25 * factor for factor in FACTORS}


def test_equal_factors_change_nothing(quick, tmp_path):
    train(quick, tmp_path / "plain")
    train(replace(quick, lr_factors=(1, 1, 1)), tmp_path / "ones")
    plain, ones = (Run.open(tmp_path / name).load()["net"] for name in ("plain", "ones"))
    assert all(torch.equal(plain[name], ones[name]) for name in plain)


@pytest.mark.parametrize("factors", [(), (1.0, 0.5), (1.0, 0.5, 0.5, 0.5)])
def test_a_wrong_number_of_factors_leaves_no_folder(factors, quick, tmp_path):
    with pytest.raises(
        DualpropError, match=rf"^lr_factors=\[.*\]: {len(factors)} numbers, but the net has 3 layers$"
    ):
        train(replace(quick, lr_factors=factors), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"lr_factors": (1.0, 0.0)},
            r"lr_factors=\(1.0, 0.0\): must be none or a list of finite numbers above 0$",
        ),
        ({"lr_factors": (1.0, -1.0)}, "lr_factors"),
        ({"lr_factors": (float("nan"),)}, "lr_factors"),
        ({"lr_factors": (float("inf"),)}, "lr_factors"),
        ({"lr_factors": (True,)}, "lr_factors"),
        ({"lr_factors": ("1",)}, "lr_factors"),
        ({"lr_factors": 1.0}, r"lr_factors=1.0: must be none or a list of finite"),
        ({"lr": 0.1, "min_lr": 0.2}, r"min_lr=0.2: must be in \[0, lr=0.1\]"),
        ({"min_lr": -1e-9}, "min_lr"),
        ({"min_lr": float("nan")}, "min_lr"),
        ({"lr_epochs": 2.5}, r"lr_epochs=2.5: must be in \[warmup_epochs=0, epochs=2\]"),
        ({"lr_epochs": 0.5, "warmup_epochs": 1.0}, "lr_epochs=0.5: must be in"),
        ({"lr_epochs": float("nan")}, "lr_epochs"),
    ],
)
def test_rates_out_of_range_are_named(change, named, quick):
    with pytest.raises(DualpropError, match=named) as caught:
        replace(quick, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("min_lr", "lr_epochs"), [(0.0, None), (1e-3, None), (1e-3, 6.0)])
def test_a_cosine_is_pytorch_s(min_lr, lr_epochs):
    """Epoch by epoch to its end, and constant from there on."""
    s = Settings(lr=0.1, lr_schedule="cosine", min_lr=min_lr, lr_epochs=lr_epochs, epochs=8)
    end = int(lr_epochs or 8)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=end, eta_min=min_lr)
    for epoch in range(end + 1):
        assert LR_SCHEDULES["cosine"](s, epoch) == pytest.approx(theirs.get_last_lr()[0], abs=1e-15)
        optimizer.step()
        theirs.step()
    assert [LR_SCHEDULES["cosine"](s, epoch) for epoch in range(end, 9)] == [min_lr] * (9 - end)


def test_factors_are_of_layers():
    import dualprop as dp

    net = dp.nets.mlp([4, 5, 3], feedback="kolen-pollack")
    own = layer_factors(net, [2.0, 3.0])
    assert {name: own[p] for name, p in net.named_parameters()} == {
        "layers.0.synapse.weight": 2.0,
        "layers.0.synapse.bias": 2.0,
        "layers.1.synapse.weight": 3.0,
        "layers.1.synapse.bias": 3.0,
        "layers.1.synapse.feedback": 3.0,
    }
