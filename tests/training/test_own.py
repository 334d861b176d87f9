"""Data, nets, rules and optimizers of one's own, as objects: what is trained is what was given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dualprop as dp
from dualprop.training.experiment import build
from dualprop.training.own import Own

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
TARGETS = X[:, :2] @ RNG.normal(size=(2, 3)).astype(np.float32)


def settings(**changes) -> dp.Settings:
    quick = {"hidden": (8,), "epochs": 2, "batch_size": 10, "lr": 0.01, "threads": 1, "device": "cpu"}
    return dp.Settings(**{**quick, **changes})


@pytest.mark.parametrize(
    ("given", "loss", "out"),
    [
        ((X, Y), "mse", 2),
        ((torch.from_numpy(X), torch.from_numpy(Y)), "cross_entropy", 2),
        (TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), "mse", 2),
        (DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=7), "mse", 2),
        ((X, TARGETS), "mse", 3),
        (((X, TARGETS), (X, TARGETS)), "mse", 3),
        ((X.reshape(60, 2, 3), TARGETS[:, 0]), "mse", 1),
    ],
    ids=["numpy", "torch", "Dataset", "DataLoader", "targets", "two parts", "any shape"],
)
def test_a_net_is_made_for_the_data_and_learns_from_it(given, loss, out):
    experiment = build(settings(loss=loss, epochs=20), own=Own(data=given))
    net, trainer = experiment.trainer.net, experiment.trainer
    assert net.shapes(experiment.dataset.in_shape)[-1] == (out,)
    before = trainer.evaluate(trainer.data.epoch(0))["loss"]
    trainer.fit(20)
    assert trainer.evaluate(trainer.data.epoch(0))["loss"] < 0.8 * before


def test_the_loader_s_batch_size_is_that_of_the_run():
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=7)
    experiment = build(settings(val_fraction=0.25), own=Own(data=loader))
    assert experiment.settings.batch_size == 7
    assert [len(y) for _, y in experiment.trainer.data.epoch(0)] == [7, 7, 7, 7, 7, 1]  # of 60·0.8·0.75


def test_features_can_be_standardised():
    shifted = X * np.float32(5) + np.float32([0, 1, 2, 3, 4, 5])
    trainer = build(
        settings(standardise=True, val_fraction=0.0), own=Own(data=((shifted, Y), (shifted, Y)))
    ).trainer
    x = torch.cat([x for x, _ in trainer.data.epoch(0)])
    torch.testing.assert_close(x.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(6), atol=1e-5, rtol=0)


def test_a_net_a_rule_and_an_optimizer_are_those_that_train():
    net = dp.nets.mlp([6, 5, 2])
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.123)
    experiment = build(settings(), own=Own((X, Y), rule=rule, optimizer=optimizer))
    trainer = experiment.trainer
    assert (trainer.net, trainer.rule, trainer.optimizer) == (net, rule, optimizer)
    trainer.fit(1)
    assert trainer.lr == 0.123
    assert experiment.settings.rule == "DualProp"
    alone = build(settings(rule="ep"), own=Own((X, Y), net=net)).trainer
    assert alone.net is net
    assert type(alone.rule) is dp.EquilibriumProp


@pytest.mark.parametrize(
    ("own", "changes", "message"),
    [
        ({"net": "mlp"}, {}, "net"),
        ({"rule": "dp"}, {}, "rule"),
        (
            {"optimizer": torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)},
            {},
            "optimizer: steps the par",
        ),
        (
            {"net": dp.nets.mlp([6, 5, 2]), "rule": dp.DualProp(dp.nets.mlp([6, 5, 2]))},
            {},
            "rule: bound to another",
        ),
        ({"net": dp.nets.mlp([7, 5, 2])}, {}, r"7|\(6,\)"),
        ({"net": dp.nets.mlp([6, 5, 1])}, {}, r"net: has outputs of shape \(1,\), but the data has 2 classes"),
        (
            {"net": dp.nets.mlp([6, 2]), "data": (X, TARGETS)},
            {},
            r"\(2,\), but the data has targets of shape \(3,\)",
        ),
        ({"data": (X, np.ones((60, 2, 2)))}, {}, r"targets of shape \(2, 2\) need a net of one's own"),
        ({"data": 5}, {}, "data: of type int, but it must be"),
        ({}, {"augment": True}, "augment is for images"),
        ({}, {"image_size": 5, "data": "digits"}, None),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(own, changes, message):
    if message is None:
        build(settings(**changes), own=Own((X, Y)))  # settings of other data do not count
        return
    with pytest.raises(dp.DualpropError, match=message) as error:
        build(settings(**changes), own=Own(**{"data": (X, Y), **own}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lr_schedule", "lr_factors", "fused_update"])
def test_an_optimizer_has_its_learning_rates(name):
    net = dp.nets.mlp([6, 5, 2])
    value = {"lr_schedule": "cosine", "lr_factors": (1.0, 0.5), "fused_update": True}[name]
    with pytest.raises(dp.DualpropError, match=f"{name}: not with an optimizer of one's own"):
        build(settings(**{name: value}), own=Own((X, Y), net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1)))


def test_what_was_given_is_recorded_and_needed_again():
    net = dp.nets.mlp([6, 5, 2])
    own = Own((X, Y), net)
    resolved = build(settings(), own=own).resolved
    assert set(resolved.own) == {"data", "net"}
    own.check_again(resolved.own)
    Own((X, Y), dp.nets.mlp([6, 5, 2])).check_again(resolved.own)
    for other, message in (
        (Own((X, Y)), r"net: the run was started from Python with one of its own .*resume\(..., net=...\)"),
        (Own(net=net), "data: the run was started from Python with one of its own"),
        (Own((X, Y), dp.nets.mlp([6, 4, 2])), "net: of .* weights .*, but the run was started with"),
        (
            Own((X, Y), net, optimizer=torch.optim.SGD(net.parameters(), 0.1)),
            "optimizer: the run was started without",
        ),
    ):
        with pytest.raises(dp.DualpropError, match=message):
            other.check_again(resolved.own)


def test_other_data_contradict_the_run():
    first = build(settings(), own=Own((X, Y)))
    build(settings(), recorded=first.resolved, own=Own((X.copy(), Y.tolist())))
    for changed in ((X[::-1], Y[::-1]), (X, 1 - Y), (X + 1e-3, Y)):
        with pytest.raises(dp.DualpropError, match="contradicts the run, which was started with other content"):
            build(settings(), recorded=first.resolved, own=Own(changed))


class Many(TensorDataset):
    """More samples than a fingerprint is of; one that no thousand of them may have."""

    def __init__(self, last: float = 0.0) -> None:
        x = torch.zeros(3000, 4)
        x[:, 0] = torch.arange(3000)
        drawn = torch.randperm(3000 - 600, generator=torch.Generator().manual_seed(0))[:1000]
        order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))[600:].sort().values
        unseen = sorted(set(range(2400)) - set(drawn.tolist()))[0]
        x[order[unseen], 1] = last
        super().__init__(x, torch.arange(3000) % 2)


def test_all_samples_are_compared_where_that_was_asked_for():
    sampled = build(settings(), own=Own(Many())).resolved
    build(settings(), recorded=sampled, own=Own(Many(1.0)))  # not seen, as is said
    with pytest.raises(dp.DualpropError, match="verify_data: the run was started without it"):
        build(settings(verify_data=True), recorded=sampled, own=Own(Many()))
    whole = build(settings(verify_data=True), own=Own(Many())).resolved
    build(settings(), recorded=whole, own=Own(Many()))
    with pytest.raises(dp.DualpropError, match="contradicts the run, which was started with other content"):
        build(settings(), recorded=whole, own=Own(Many(1.0)))


def test_a_named_data_set_is_known_by_its_content_too():
    first = build(settings(data="digits")).resolved
    assert len(first.data) == 32
    changed = type(first)(**{**vars(first), "data": "0" * 32})
    with pytest.raises(dp.DualpropError, match="data='digits': contradicts the run"):
        build(settings(data="digits"), recorded=changed)


@pytest.mark.parametrize("given", [(X, Y), (torch.from_numpy(X), torch.from_numpy(Y)), (X, TARGETS)])
def test_a_trainer_takes_arrays(given):
    torch.manual_seed(0)
    net = dp.nets.mlp([6, 8, 3])
    trainer = dp.Trainer(net, dp.DualProp(net), torch.optim.Adam(net.parameters(), 0.01), given, batch_size=25)
    assert len(trainer.data) == 3
    first, second = (torch.cat([x for x, _ in trainer.data.epoch(epoch)]) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(0).values, torch.from_numpy(X).sort(0).values)
    before = trainer.fit(1)["loss"]
    assert trainer.fit(15)["loss"] < before


def test_a_trainer_takes_a_torch_data_set():
    net = dp.nets.mlp([6, 8, 2])
    samples = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    trainer = dp.Trainer(net, dp.DualProp(net), torch.optim.Adam(net.parameters()), samples, batch_size=25)
    assert len(trainer.data) == 3
    assert "accuracy" in trainer.fit(1)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("net", lambda net: {"net": dp.nets.mlp([6, 4, 2], "sigmoid")}),
        ("rule", lambda net: {"rule": dp.DualProp(net, beta=0.9)}),
        ("rule", lambda net: {"rule": dp.DualProp(net, beta=0.5, loss="cross_entropy")}),
        ("optimizer", lambda net: {"optimizer": torch.optim.SGD(net.parameters(), lr=5.0)}),
        ("optimizer", lambda net: {"optimizer": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)}),
    ],
)
def test_an_object_of_other_settings_is_another(name, other):
    net = dp.nets.mlp([6, 4, 2], "tanh")
    given = {
        "net": net,
        "rule": dp.DualProp(net, beta=0.5),
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1),
    }
    if name == "net":
        del given["rule"], given["optimizer"]
    before = Own((X, Y), **given).described()
    Own((X, Y), **given).check_again(before)
    with pytest.raises(dp.DualpropError, match=f"{name}: of .*, but the run was started with"):
        Own((X, Y), **{**given, **other(net)}).check_again(before)


@pytest.mark.parametrize("shape", [(0, 6), (5, 0)])
def test_data_that_hold_nothing_are_refused(shape):
    with pytest.raises(dp.DualpropError, match=r"data: train X of shape .* holds nothing"):
        build(settings(), own=Own((torch.zeros(shape), torch.zeros(shape[0]).long())))
