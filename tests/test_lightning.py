"""The state engine under Lightning's Trainer: the weights are those of the plain loop, whatever Lightning does."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

lightning = pytest.importorskip("lightning")

import dualprop as dp  # noqa: E402
from dualprop.lightning import DualPropModule  # noqa: E402

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
pytestmark = pytest.mark.filterwarnings("ignore")


def batches(count=4, size=6):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 5, generator=generator), torch.randint(3, (size,), generator=generator))
        for _ in range(count)
    ]


def loader(*counts):
    """The same to Lightning, which takes a list for several loaders."""
    return torch.utils.data.DataLoader(batches(*counts), batch_size=None)


def net(**options):
    return dp.nets.mlp([5, 8, 3], "sigmoid", generator=torch.Generator().manual_seed(1), **options)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def trained(rule, folder, epochs=2, **options):
    module = DualPropModule(rule, sgd)
    options = {**QUIET, "enable_checkpointing": False, "accelerator": "cpu", **options}
    trainer = lightning.Trainer(max_epochs=epochs, default_root_dir=folder, **options)
    trainer.fit(module, loader())
    return module, trainer


def by_hand(rule, together=1, clip=None, epochs=2):
    """The plain loop: `together` batches a step, their mean."""
    optimizer = sgd(rule.net.parameters())
    for _ in range(epochs):
        for k, (x, y) in enumerate(batches(), 1):
            rule.backward(x, y)
            if k % together == 0:
                for p in rule.net.parameters():
                    p.grad /= together
                if clip:
                    torch.nn.utils.clip_grad_norm_(rule.net.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()


def same(ours, theirs, **tolerance):
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


RULES = {
    "dp": lambda net: dp.DualProp(net, beta=0.7),
    "lazy": lambda net: dp.DualProp(net, lazy=True),
    "bp": dp.Backprop,
    "ep": lambda net: dp.RULES["ep"](net, T1=8, T2=4),
}


@pytest.mark.parametrize("rule", RULES)
def test_it_is_the_plain_loop(rule, tmp_path):
    ours, theirs = (RULES[rule](net()) for _ in range(2))
    trained(ours, tmp_path)
    by_hand(theirs)
    same(ours.net, theirs.net)
    assert not torch.equal(ours.net.stack[0].synapse.weight, net().stack[0].synapse.weight)


@pytest.mark.parametrize(("together", "clip"), [(2, None), (1, 0.05), (2, 0.05)])
def test_accumulation_and_clipping(together, clip, tmp_path):
    ours, theirs = (dp.DualProp(net(), loss="cross_entropy") for _ in range(2))
    trained(ours, tmp_path, accumulate_grad_batches=together, gradient_clip_val=clip)
    by_hand(theirs, together, clip)
    same(ours.net, theirs.net)


def test_feedback_weights_of_their_own(tmp_path):
    ours, theirs = (dp.RULES["kp-dp"](net(feedback="kolen-pollack")) for _ in range(2))
    trained(ours, tmp_path)
    by_hand(theirs)
    same(ours.net, theirs.net)


def test_hooks_of_parameters_act_once(tmp_path):
    ours, theirs = (dp.DualProp(net()) for _ in range(2))
    for rule in (ours, theirs):
        rule.net.stack[0].synapse.weight.register_hook(lambda g: 3 * g + 0.01)
    trained(ours, tmp_path)
    by_hand(theirs)
    same(ours.net, theirs.net)


def test_mixed_precision_multiplies_by_the_scaler_and_back(tmp_path):
    ours, theirs = (dp.DualProp(net(), beta=0.1) for _ in range(2))
    trained(ours, tmp_path, precision="bf16-mixed")
    by_hand(theirs)
    same(ours.net, theirs.net, rtol=0.1, atol=0.05)


def test_validation_is_the_rule_s_prediction(tmp_path):
    rule = dp.RULES["ep"](net(), T1=8, T2=4)
    module = DualPropModule(rule, sgd)
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, accelerator="cpu",
        enable_checkpointing=False, **QUIET,
    )  # fmt: skip
    trainer.fit(module, loader(), loader(1))
    ((x, y),) = batches(1)
    output = rule.predict(x)
    assert float(trainer.callback_metrics["val_accuracy"]) == pytest.approx(
        float((output.argmax(1) == y).float().mean())
    )
    target = torch.nn.functional.one_hot(y, 3)
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(
        float((output - target).square().sum(1).mean() / 2), rel=1e-5
    )
    assert torch.equal(module(x), output)


def test_a_checkpoint_has_what_a_lazy_rule_keeps(tmp_path):
    whole = dp.DualProp(net(), lazy=True)
    trained(whole, tmp_path, epochs=4)
    first = dp.DualProp(net(), lazy=True)
    _, trainer = trained(first, tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    second = dp.DualProp(net(), lazy=True)
    module = DualPropModule(second, sgd)
    trainer = lightning.Trainer(
        max_epochs=4, default_root_dir=tmp_path, accelerator="cpu", enable_checkpointing=False, **QUIET
    )
    trainer.fit(module, loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    same(second.net, whole.net, rtol=0, atol=0)


def test_several_updates_a_batch_are_refused():
    with pytest.raises(dp.DualpropError, match="makes 3 weight updates a batch"):
        DualPropModule(dp.RULES["ms-dp"](net()), sgd)


def test_copies_and_gradients_left_alone(tmp_path):
    """The step leaves .grad to autograd: what was there is added to."""
    module = DualPropModule(dp.DualProp(net()), sgd)
    module.log = lambda *_, **__: None
    twin = copy.deepcopy(module.net)
    ((x, y),) = batches(1)
    for factor in (1.0, 2.0):
        (factor * module.training_step((x, y))).backward()
    dp.DualProp(twin).backward(x, y)
    for a, b in zip(module.net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, 3 * b.grad)


SCRIPT = """
import os, sys, warnings, torch, lightning, dualprop as dp
from torch.utils.data import DataLoader, TensorDataset
from dualprop.lightning import DualPropModule
warnings.filterwarnings("ignore")
devices, kind, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
g = torch.Generator().manual_seed(0)
x, y = torch.randn(24, 5, generator=g), torch.randint(3, (24,), generator=g)
feedback = "kolen-pollack" if kind == "kp-dp" else "symmetric"
net = dp.nets.mlp([5, 8, 3], feedback=feedback, generator=torch.Generator().manual_seed(1))
sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5, weight_decay=0.01)

class Mine(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = dp.convert(net.plain(), beta=3.0)
    def training_step(self, batch, _):
        with dp.scaled_loss(times=1 / 2):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self):
        return sgd(self.parameters())

class Gradients(lightning.Callback):
    seen = []
    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen.append([p.grad.clone() for p in net.parameters()])

module = Mine() if kind == "convert" else DualPropModule(dp.RULES[kind](net, loss="cross_entropy"), sgd)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", devices=devices, callbacks=[Gradients()],
    strategy="ddp" if devices > 1 else "auto", accumulate_grad_batches=2, gradient_clip_val=0.1,
    logger=False, enable_checkpointing=False, use_distributed_sampler=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder)
rank = int(os.environ.get("LOCAL_RANK", 0))  # each has every second sample
data = TensorDataset(x[rank::devices], y[rank::devices])
trainer.fit(module, DataLoader(data, batch_size=6 // devices))
assert trainer.world_size == devices
kept = {"weights": [p.detach() for p in net.parameters()], "gradients": Gradients.seen}
torch.save(kept, f"{folder}/{devices}-{trainer.global_rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dp", "kp-dp", "convert"])
def test_two_processes_are_one(kind, tmp_path):
    """Each has every second sample: gradients and weights are those of one process with the whole batch."""
    (tmp_path / "train.py").write_text(SCRIPT)
    for devices in (1, 2):
        done = subprocess.run(
            [sys.executable, "train.py", str(devices), kind, str(tmp_path)],
            cwd=tmp_path, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    one, *two = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert len(one["gradients"]) == 4  # two updates in each of two epochs
    for ours in two:
        torch.testing.assert_close(ours, one, rtol=1e-4, atol=1e-6)
    assert all(float(grad.norm()) > 1e-3 for step in one["gradients"] for grad in step)


def test_several_inputs_and_outputs_of_a_loader_that_collates(tmp_path):
    """Which makes lists of tuples; losses add up, the accuracy is that of the first output."""

    def graph():
        g = dp.Graph()
        x, z = g.input("x"), g.input("z")
        make = torch.Generator().manual_seed(1)
        h = g.layer("h", {x: dp.Dense(5, 6, generator=make), z: dp.Dense(4, 6, generator=make)}, "tanh")
        outputs = [g.layer(n, {h: dp.Dense(6, k, generator=make)}, "linear") for n, k in (("a", 3), ("b", 2))]
        return dp.DualProp(g.net(outputs), loss="cross_entropy", beta=0.1)

    make = torch.Generator().manual_seed(0)
    x, z = torch.randn(6, 5, generator=make), torch.randn(6, 4, generator=make)
    y = torch.arange(6) % 3, torch.arange(6) % 2
    samples = [((x[k], z[k]), (y[0][k], y[1][k])) for k in range(6)]
    loader = torch.utils.data.DataLoader(samples, batch_size=6)
    ours, theirs = graph(), graph()
    module = DualPropModule(ours, sgd)
    options = {**QUIET, "enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    trainer = lightning.Trainer(max_epochs=1, **options)
    trainer.fit(module, loader)
    theirs.backward((x, z), y)
    sgd(theirs.net.parameters()).step()
    same(ours.net, theirs.net)
    (scores,) = trainer.test(module, loader, verbose=False)
    outputs = ours.predict((x, z))
    losses = [float(torch.nn.functional.cross_entropy(o, t)) for o, t in zip(outputs, y, strict=True)]
    assert scores["test_loss"] == pytest.approx(sum(losses), rel=1e-5)
    assert scores["test_accuracy"] == pytest.approx(float((outputs[0].argmax(1) == y[0]).float().mean()))


def test_a_rule_that_is_none_is_refused():
    with pytest.raises(dp.DualpropError, match="rule='dp': must be a"):
        DualPropModule("dp", sgd)
