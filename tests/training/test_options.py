"""What is off by default: clipping, smoothing, averaging, fused updates, channels-last order, compiling."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch.nn import functional as F

import dualprop as dp
from dualprop import data, resume, train
from dualprop.errors import DualpropError, Interrupted
from dualprop.nets.losses import CrossEntropy
from dualprop.runs.folder import Run
from dualprop.training.experiment import build
from dualprop.training.interrupt import Interrupt
from dualprop.training.optim.fused import FusedUpdate
from tests.slow import but_slow

RATES = {"lr_factors": (1.0, 0.5, 0.125), "lr_schedule": "cosine", "min_lr": 1e-4}


def steps(settings, count):
    """The weights after a few batches, by the trainer's own step."""
    e = build(settings)
    for x, y in islice(e.trainer.data, count):
        e.trainer.learn(x, y)
    return e, {name: value.clone() for name, value in e.trainer.net.state_dict().items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def weights(path):
    return Run.open(path).load()["net"]


# Fused updates


@pytest.mark.parametrize("rule", but_slow(dp.RULES, *set(dp.RULES) - {"dp", "kp-dp", "ms-dp", "ep", "dtp"}))
@pytest.mark.parametrize("optimizer", but_slow(["sgd", "adam"], "adam"))
def test_a_fused_update_gives_the_same_weights(rule, optimizer, quick, tmp_path):
    """Through two epochs, with the alignment that asks for gradients in between."""
    settings = replace(quick, rule=rule, optimizer=optimizer, lr=0.01, weight_decay=0.01, alignment=True)
    settings = replace(settings, batch_size=500)
    train(settings, tmp_path / "whole")
    train(replace(settings, fused_update=True), tmp_path / "fused")
    assert_equal(weights(tmp_path / "fused"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("rule", ["bp", "dp"])
def test_a_fused_update_never_holds_two_gradients(rule):
    net = dp.nets.mlp([4, 8, 8, 3])
    held = []

    def count(_):
        held.append(sum(p.grad is not None for p in net.parameters()))

    update = FusedUpdate(net.parameters(), lambda p: torch.optim.SGD(p, lr=0.1), before=count)
    with update:
        dp.RULES[rule](net).backward(torch.randn(5, 4), torch.randint(3, (5,)))
    assert held == [1] * 6
    assert all(p.grad is None for p in net.parameters())


def test_a_fused_update_acts_in_its_block_alone_and_leaves_frozen_parameters():
    net = dp.nets.mlp([4, 8, 3])
    net.chain[0].synapse.weight.requires_grad_(False)
    before = [p.clone() for p in net.parameters()]
    update = FusedUpdate(net.parameters(), lambda p: torch.optim.SGD(p, lr=0.1))
    rule, x, y = dp.DualProp(net), torch.randn(5, 4), torch.randint(3, (5,))
    rule.backward(x, y)
    assert all(torch.equal(p, was) for p, was in zip(net.parameters(), before, strict=True))
    assert net.chain[1].synapse.weight.grad is not None
    net.zero_grad()
    with update:
        rule.backward(x, y)
    changed = [not torch.equal(p, was) for p, was in zip(net.parameters(), before, strict=True)]
    assert changed == [False, True, True, True]


def test_a_fused_update_refuses_the_state_of_another_net():
    update = FusedUpdate(dp.nets.mlp([4, 3]).parameters(), torch.optim.SGD)
    with pytest.raises(DualpropError, match="optimizer: 4, but it must be a list of 2"):
        update.load_state_dict(FusedUpdate(dp.nets.mlp([4, 8, 3]).parameters(), torch.optim.SGD).state_dict())


# Clipping


@pytest.mark.parametrize("rule", ["bp", "kp-dp"])
def test_gradients_are_clipped_by_their_norm_together(rule, quick):
    """One SGD step of learning rate 1: all weights change by the norm that is allowed, in the same direction."""
    settings = replace(quick, rule=rule, optimizer="sgd", momentum=0.0, lr=1.0)
    start = build(settings).trainer.net.state_dict()
    change = {}
    for clip_norm in (0.0, 0.01):
        _, after = steps(replace(settings, clip_norm=clip_norm), 1)
        change[clip_norm] = torch.cat([(after[name] - start[name]).flatten().double() for name in start])
    assert float(change[0.0].norm()) > 0.1
    assert float(change[0.01].norm()) == pytest.approx(0.01, rel=1e-3)
    assert float(F.cosine_similarity(change[0.0], change[0.01], dim=0)) == pytest.approx(1, abs=1e-5)


def test_small_gradients_are_not_clipped(quick):
    assert_equal(steps(replace(quick, clip_norm=1e6), 3)[1], steps(quick, 3)[1])


def test_clipping_needs_every_gradient_at_once(quick):
    with pytest.raises(DualpropError, match="fused_update: not with clip_norm=1, which needs every gradient"):
        replace(quick, clip_norm=1.0, fused_update=True)


# Label smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_pytorch_s(smoothing):
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 2, 0])
    loss = CrossEntropy(label_smoothing=smoothing)
    for target in (y, torch.softmax(torch.randn(6, 4, dtype=torch.float64), 1)):
        encoded = loss.encode(target, z.shape, z.dtype)
        expected = F.cross_entropy(z, target, label_smoothing=smoothing, reduction="none")
        torch.testing.assert_close(loss.value(z, encoded), expected)
        (gradient,) = torch.autograd.grad(expected.sum(), z)
        torch.testing.assert_close(loss.gradient(z.detach(), encoded), gradient)


def test_smoothing_leaves_the_targets_as_they_are():
    y = torch.tensor([[0.0, 1.0]])
    CrossEntropy(label_smoothing=0.5).encode(y, y.shape, y.dtype)
    assert y.tolist() == [[0.0, 1.0]]


def test_learning_is_smoothed_and_evaluation_is_not(quick):
    e = build(replace(quick, loss="cross_entropy", label_smoothing=0.2))
    x, y = next(iter(e.trainer.data))
    rule = e.trainer.rule
    z = rule.predict(x)
    assert float(rule.backward(x, y).loss) == pytest.approx(float(F.cross_entropy(z, y, label_smoothing=0.2)))
    images, labels = e.dataset.test.batch(torch.arange(len(e.dataset.test)))
    expected = F.cross_entropy(rule.predict(images / 255), labels)
    evaluated = e.trainer.evaluate([(images / 255, labels)])
    assert evaluated["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_only_cross_entropy_smooths(quick, tmp_path):
    with pytest.raises(DualpropError, match=r"label_smoothing=0\.1: only cross_entropy"):
        train(replace(quick, label_smoothing=0.1), tmp_path / "run")
    with pytest.raises(DualpropError, match=r"label_smoothing=1: must be a number in \[0, 1\)"):
        CrossEntropy(label_smoothing=1)
    assert list(tmp_path.iterdir()) == []


# Averaged weights


def test_averaged_weights_are_those_of_the_definition(quick):
    """w̄_1 = w_1, then w̄ ← 0.75 w̄ + 0.25 w, computed beside the trainer in double precision."""
    e = build(replace(quick, ema=0.75, lr=1e-2))
    net, expected = e.trainer.net, None
    for number, (x, y) in enumerate(e.trainer.data):
        e.trainer.learn(x, y)
        w = {name: value.double() for name, value in net.state_dict().items()}
        expected = w if number == 0 else {n: 0.75 * expected[n] + 0.25 * w[n] for n in w}
    own = {name: value.clone() for name, value in net.state_dict().items()}
    with e.validation.evaluated():
        for name, value in net.state_dict().items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, own[name])
    assert_equal(net.state_dict(), own)


@pytest.mark.parametrize("val_fraction", [0.0, 0.2])
def test_averaged_weights_are_validated_kept_and_tested(val_fraction, quick, tmp_path):
    settings = replace(quick, ema=0.9, val_fraction=val_fraction, epochs=1)
    result = train(settings, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    averaged = {name.removeprefix("module."): v for name, v in run.load()["average"].items() if "module" in name}
    best = run.load_weights("best.safetensors")[0]
    assert_equal(best, averaged)
    assert not any(torch.equal(best[name], weights(run.path)[name]) for name in best)
    e = build(settings)
    net = e.trainer.net
    net.load_state_dict(best)
    images, labels = e.dataset.test.batch(torch.arange(len(e.dataset.test)))
    assert result.test_accuracy == pytest.approx(float((net(images / 255).argmax(1) == labels).double().mean()))
    if val_fraction:
        assert result.val_accuracy == e.trainer.evaluate(e.validation.batches)["accuracy"]


def test_averaging_does_not_change_what_is_learnt(quick, tmp_path):
    train(quick, tmp_path / "plain")
    train(replace(quick, ema=0.9), tmp_path / "averaged")
    assert_equal(weights(tmp_path / "averaged"), weights(tmp_path / "plain"))


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.9},
        {"fused_update": True},
        {"ema": 0.9, "fused_update": True, "rule": "ms-dp"},
        RATES,
        {**RATES, "fused_update": True},
    ],
)
def test_a_stopped_run_ends_with_the_same_bits(change, quick, tmp_path, monkeypatch):
    settings = replace(quick, **change)
    train(settings, tmp_path / "whole")
    polls = iter(range(10_000))
    asked = property(lambda self: next(polls) >= 6, lambda self, value: None)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "asked", asked, raising=False)
        with pytest.raises(Interrupted):
            train(settings, tmp_path / "stopped")
    resume(tmp_path / "stopped")
    whole, stopped = (Run.open(tmp_path / name) for name in ("whole", "stopped"))
    assert_equal(stopped.load()["net"], whole.load()["net"])
    assert_equal(stopped.load_weights("best.safetensors")[0], whole.load_weights("best.safetensors")[0])


# Memory order and compiling


@pytest.fixture
def small_vgg(monkeypatch):
    """A net of two convolutions under the name small."""

    def make(num_classes, in_shape, **options):
        return dp.nets.vgg([[4], [6]], [], num_classes, in_shape, **options)

    monkeypatch.setitem(dp.NETS, "small", dp.nets.NetKind(make, pools=True))


@pytest.mark.parametrize("rule", ["bp", "dp", "kp-dp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.usefixtures("small_vgg")
def test_channels_last_order_changes_speed_alone(rule, optimizer, quick):
    settings = replace(
        quick, rule=rule, net="small", hidden=None, loss="cross_entropy", optimizer=optimizer, lr=1e-2
    )
    e, ours = steps(replace(settings, channels_last=True), 4)
    x, _ = next(iter(e.trainer.data))
    assert x.is_contiguous(memory_format=torch.channels_last)
    convolutions = [p for p in e.trainer.net.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert any(not p.is_contiguous() for p in convolutions)
    _, theirs = steps(settings, 4)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["bp", "dp", "kp-dp"])
@pytest.mark.usefixtures("small_vgg")
def test_gradients_lie_in_memory_as_their_parameters_do(rule, quick):
    """PyTorch's fused optimizers on a CPU read both in that order, and are silently wrong where it differs."""
    e = build(replace(quick, rule=rule, net="small", hidden=None, channels_last=True))
    e.trainer.rule.backward(*next(iter(e.trainer.data)))
    for name, p in e.trainer.net.named_parameters():
        assert p.grad.stride() == p.stride(), name


def test_images_in_channels_last_order_are_the_same_images():
    split = data.load("digits").train
    for augment in (False, True):
        pair = [
            dp.data.Batches(split, 7, augment=augment, seed=0, memory_format=memory_format)
            for memory_format in (torch.contiguous_format, torch.channels_last)
        ]
        for (x, y), (x_last, y_last) in zip(*pair, strict=True):
            assert torch.equal(x, x_last)
            assert torch.equal(y, y_last)
            assert x_last.is_contiguous(memory_format=torch.channels_last)


def test_compile_asks_the_rule(quick, monkeypatch):
    asked = []
    monkeypatch.setattr(dp.DualProp, "compile", lambda self: asked.append(self), raising=False)
    e = build(replace(quick, compile=True))
    assert asked == [e.trainer.rule]
    build(quick)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ema": 1.0}, "ema=1.0"),
        ({"ema": -0.1}, "ema"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"clip_norm": float("inf")}, "clip_norm"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"lr": "a"}, "lr='a': must be a finite number above 0"),
        ({"lr": None}, "lr=None"),
        ({"epochs": 2.5}, "epochs=2.5: must be a whole number of at least 1"),
        ({"epochs": True}, "epochs=True"),
        ({"augment": 1}, "augment=1: must be true or false"),
        ({"rule": 3}, "rule=3: must be a word"),
        ({"hidden": "24"}, "hidden='24'"),
        ({"hidden": (24, True)}, "hidden="),
        ({"hidden": 24}, "hidden=24: must be none or a list of whole numbers of at least 1"),
        ({"rule_settings": [1]}, r"rule_settings=\[1\]"),
        ({"image_size": "8"}, "image_size='8': must be a whole number of at least 1 or none"),
    ],
)
def test_wrong_values_are_one_line(change, named, quick):
    with pytest.raises(DualpropError, match=named) as caught:
        replace(quick, **change)
    assert "\n" not in str(caught.value)


def test_a_net_chooses_its_own_hidden_layers(quick):
    """Without `hidden` mlp has 256-256, and an empty one is no hidden layer at all."""
    sizes = {
        hidden: [p.shape[0] for p in build(replace(quick, hidden=hidden)).trainer.net.parameters() if p.ndim == 2]
        for hidden in (None, (), (5,))
    }
    assert sizes == {None: [256, 256, 10], (): [10], (5,): [5, 10]}
