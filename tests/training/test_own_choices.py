"""What is left to the rule: activation, pool and initial weights of a net that is made for it."""

import json
from dataclasses import replace

import pytest
import torch

import dualprop as dp
from dualprop import load_net, resume, train
from dualprop.errors import DualpropError
from dualprop.nets.potentials import POTENTIALS
from dualprop.nets.synapses import MaxPool2d, SoftmaxPool2d
from dualprop.runs.folder import Run
from dualprop.studies.comparison import compare
from dualprop.training.experiment import build
from dualprop.training.recipes import Recipe
from dualprop.training.resolved import make_net, net_arguments


def build_net(settings, in_shape, num_classes):
    return make_net(settings.net, net_arguments(settings, in_shape, num_classes), settings.seed)


def pools_of(net):
    """The kinds of pool in and behind the synapses."""
    synapses = [layer.synapse for layer in net.chain]
    found = [pool for s in synapses for pool in (s.core.pool, s.behind) if pool is not None]
    return {type(pool) for pool in found}


@pytest.mark.parametrize("rule", dp.RULES)
def test_a_net_has_the_rule_s_activation_unless_one_is_chosen(rule, quick):
    own = build_net(replace(quick, rule=rule), (64,), 10)
    assert {layer.potential for layer in own.chain[:-1]} == {POTENTIALS[dp.RULES[rule].activation]}
    chosen = build_net(replace(quick, rule=rule, activation="tanh"), (64,), 10)
    assert {layer.potential for layer in chosen.chain[:-1]} == {POTENTIALS["tanh"]}


@pytest.mark.parametrize(
    ("rule", "pool", "kind"),
    [
        ("dp", None, MaxPool2d),
        ("hep", None, SoftmaxPool2d),
        ("hep", "max", MaxPool2d),
        ("dp", "avg", dp.AvgPool2d),
    ],
)
@pytest.mark.parametrize("net", ["vgg_like", "hopfield_cnn"])
def test_a_convolutional_net_has_the_rule_s_pools_unless_others_are_chosen(rule, pool, kind, net, quick):
    made = build_net(replace(quick, rule=rule, net=net, hidden=None, pool=pool), (3, 32, 32), 10)
    assert pools_of(made) == {kind}


def test_a_net_without_pools_takes_the_rule_but_no_pool(quick, tmp_path):
    assert pools_of(build_net(replace(quick, rule="hep"), (64,), 10)) == set()
    with pytest.raises(DualpropError, match="pool='max': mlp has no pooling"):
        train(replace(quick, pool="max"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_run_from_before_there_was_a_choice(quick, tmp_path):
    """Its settings say relu and know nothing of pools, rates by layer and the like."""
    train(replace(quick, activation="relu"), tmp_path / "run")
    file = tmp_path / "run" / "settings.json"
    settings = json.loads(file.read_text())
    for name in ("pool", "init", "lr_factors", "min_lr", "lr_epochs", "std_scale"):
        del settings[name]
    checkpoint = Run.open(tmp_path / "run").load()
    file.write_text(json.dumps(settings))
    Run.open(tmp_path / "run").save(checkpoint)  # which was made with those
    (tmp_path / "run" / "result.json").unlink()
    assert resume(tmp_path / "run").best_epoch in (1, 2)
    best = Run.open(tmp_path / "run").load_weights("best.safetensors")[0]
    assert all(torch.equal(value, best[name]) for name, value in load_net(tmp_path / "run").state_dict().items())


def test_a_comparison_says_what_is_not_the_same_for_every_rule(tmp_path):
    recipe = Recipe(
        {"hidden": [8], "epochs": 1, "alignment": False},
        {"ep": {"lr": 0.25, "rule_settings": {"T1": 4, "T2": 3}}, "dp": {"rule_settings": {"beta": 0.5}}},
    )
    report = compare(["bp", "dp", "ep"], [0, 1], {}, tmp_path / "c", recipe)
    assert report.title == "digits, mlp 8, mse, 1 epoch"
    lines = report.remarks()
    assert lines[:5] == [
        f"activation: relu for bp and dp; {dp.RULES['ep'].activation} for ep",
        f"init: glorot-uniform for bp and dp; {dp.RULES['ep'].init} for ep",
        "lr: 0.001 for bp and dp; 0.25 for ep",
        "dp has beta=0.5",
        "ep has T1=4, T2=3",
    ]
    assert lines[5].startswith("ep measured, in the mean over its batches, free_steps=4")
    assert len(lines) == 6
    table = (tmp_path / "c" / "table.md").read_text()
    assert all(f"\n- {line}\n" in table for line in lines)
    products = dict(zip(("bp", "dp", "ep"), (row[-1] for row in report.table().rows), strict=True))
    assert report.table().columns[-1] == "products / batch"
    assert (products["bp"], products["dp"]) == ("", "3")
    assert float(products["ep"]) >= 2 * (4 + 3)


def test_a_comparison_of_like_runs_says_no_more_than_before(tmp_path):
    report = compare(["bp"], [0], {"hidden": [8], "epochs": 1}, tmp_path / "c")
    assert report.title == "digits, mlp 8, mse, adam 0.001, 1 epoch"
    assert report.remarks() == []
    assert report.table().columns[-1] == "cosine to bp"


def test_std_scale_shrinks_standardised_images(quick):
    plain, scaled = (build(replace(quick, standardise=True, std_scale=scale)) for scale in (1.0, 3.0))
    (x, _), (z, _) = next(iter(plain.trainer.data)), next(iter(scaled.trainer.data))
    torch.testing.assert_close(z, x / 3)
    with pytest.raises(DualpropError, match="std_scale=3: goes with standardise"):
        replace(quick, std_scale=3.0)
    with pytest.raises(DualpropError, match="std_scale=0"):
        replace(quick, standardise=True, std_scale=0)
