"""The trainer by itself: one's own net, rule, optimizer and batches, and callbacks in their order."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dualprop as dp
from dualprop.errors import DivergenceError, DualpropError
from dualprop.runs.folder import Run
from dualprop.training.callbacks import AverageGradients, ClipGradients, Validation
from dualprop.training.experiment import build
from tests.oracles.refused import refused


def parts(rounds=1, seed=0):
    """A net of one's own with a rule and an optimizer, the same every time."""
    generator = torch.Generator().manual_seed(seed)
    below, above = (dp.Dense(*sizes, generator=generator) for sizes in ((6, 9), (9, 7)))
    net = dp.Net([dp.Layer(below, "tanh"), dp.Layer(above, "linear")])
    rule = dp.DualProp(net, loss="cross_entropy", beta=0.1, rounds=rounds)
    return net, rule, torch.optim.SGD(net.parameters(), lr=0.1)


def batches(count=5, size=8):
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(7, (size,), generator=generator))
        for _ in range(count)
    ]


def loader():
    x, y = (torch.cat(side) for side in zip(*batches(), strict=True))
    return DataLoader(TensorDataset(x, y), batch_size=8)


@pytest.mark.parametrize("data", [batches, loader])
@pytest.mark.parametrize("rounds", [1, 2])
def test_it_trains_as_the_loop_of_the_readme(data, rounds):
    net, rule, optimizer = parts(rounds)
    numbers = dp.Trainer(net, rule, optimizer, data()).fit(3)
    own, rule, optimizer = parts(rounds)
    for _ in range(3):
        losses, hits, hits5 = [], [], []
        for x, y in batches():
            first = None
            for step in rule.iterate(x, y):
                first = first or step
                optimizer.step()
                optimizer.zero_grad()
            losses.append(float(first.loss))
            ranks = (first.output > first.output.gather(1, y[:, None])).sum(1)
            hits.append((ranks < 1).double().mean())
            hits5.append((ranks < 5).double().mean())
    for ours, theirs in zip(net.parameters(), own.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert numbers["loss"] == pytest.approx(sum(losses) / 5)
    assert numbers["accuracy"] == pytest.approx(float(sum(hits) / 5))
    assert numbers["accuracy_top5"] == pytest.approx(float(sum(hits5) / 5))
    assert 0 < numbers["accuracy"] < numbers["accuracy_top5"] < 1


def test_it_goes_on_from_where_it_was():
    """Within an epoch, to the same bits and numbers."""
    whole = dp.Trainer(*parts(), batches())
    expected = whole.fit(2)

    class Stop(dp.Callback):
        def step(self, trainer):
            if trainer.step == 7:
                raise InterruptedError

    stopped = dp.Trainer(*parts(), batches(), [Stop()])
    with pytest.raises(InterruptedError):
        stopped.fit(2)
    again = dp.Trainer(*parts(seed=3), batches())
    again.load_state_dict(stopped.state_dict())
    numbers = again.fit(2)
    timed = ("seconds", "images_per_second")
    assert {k: v for k, v in numbers.items() if k not in timed} == {
        k: v for k, v in expected.items() if k not in timed
    }
    for ours, theirs in zip(again.net.parameters(), whole.net.parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Told(dp.Callback):
    """Writes down its name at every moment."""

    def __init__(self, name, log):
        self.own, self.log = name, log

    @contextmanager
    def during(self, trainer):
        self.log.append(f"{self.own} in")
        yield
        self.log.append(f"{self.own} out")

    def gradients(self, trainer):
        assert all(p.grad is not None for p in trainer.net.parameters())
        self.log.append(f"{self.own} gradients")

    def update(self, trainer):
        assert all(p.grad is None for p in trainer.net.parameters())
        self.log.append(f"{self.own} update")

    def step(self, trainer):
        self.log.append(f"{self.own} step {trainer.step}")

    def epoch(self, trainer):
        self.log.append(f"{self.own} epoch {trainer.epoch}")

    def end(self, trainer):
        self.log.append(f"{self.own} end")


def test_callbacks_are_called_in_the_order_of_the_list():
    log = []
    dp.Trainer(*parts(rounds=2), batches(1), [Told("a", log), Told("b", log)]).fit(1)
    assert log == [
        *("a in", "b in"),
        *2 * ("a gradients", "b gradients", "a update", "b update"),
        *("a step 1", "b step 1", "a epoch 1", "b epoch 1", "a end", "b end", "b out", "a out"),
    ]


def test_gradients_are_averaged_before_they_are_clipped(quick):
    kinds = [type(callback) for callback in build(replace(quick, clip_norm=1.0)).trainer.callbacks]
    assert kinds.index(AverageGradients) < kinds.index(ClipGradients)


def test_what_a_callback_adds_is_recorded_and_what_it_keeps_is_kept(quick, tmp_path):
    class Counting(dp.Callback):
        name, count = "counting", 0

        def epoch(self, trainer):
            self.count += 1
            trainer.numbers["counted"] = self.count

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    dp.train(quick, tmp_path / "run", callbacks=[Counting()])
    run = Run.open(tmp_path / "run")
    assert [r["counted"] for r in run.metrics() if r["kind"] == "epoch"] == [1, 2]
    assert run.load()["counting"] == {"count": 2}


def test_the_best_weights_of_one_s_own_validation():
    net, rule, optimizer = parts()
    validation = Validation(net, batches(2))
    numbers = dp.Trainer(net, rule, optimizer, batches(), [validation]).fit(2)
    assert validation.best.numbers.keys() == {"loss", "accuracy", "accuracy_top5"}
    assert {"val_loss", "val_accuracy", "val_accuracy_top5"} <= numbers.keys()


def test_float_targets_have_a_loss_and_no_accuracy():
    generator = torch.Generator().manual_seed(0)
    net = dp.nets.mlp([6, 4], generator=generator)
    data = [(torch.randn(8, 6), torch.randn(8, 4)) for _ in range(3)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    numbers = dp.Trainer(net, dp.Backprop(net), optimizer, data).fit(2)
    assert "loss" in numbers
    assert "accuracy" not in numbers


def test_numbers_that_go_astray_are_told_with_step_and_epoch():
    net = dp.nets.mlp([6, 9, 7])
    wild = torch.optim.SGD(net.parameters(), lr=1e20)
    with pytest.raises(DivergenceError, match=r"^at step \d+ \(epoch 1\) the loss became .*first in layer"):
        dp.Trainer(net, dp.Backprop(net), wild, batches(20)).fit(1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"net": 3}, "net=3: must be a dualprop.Net"),
        ({"rule": 3}, "rule=3: must be a dualprop.Rule"),
        ({"net": dp.nets.mlp([6, 7])}, "rule: bound to another net"),
        ({"data": 3}, "data: int, but it must be a list of batches, a DataLoader or a Batches"),
        ({"data": iter([])}, "data: list_iterator, but"),
        ({"data": []}, "data: holds no batch"),
        ({"callbacks": [3]}, "callbacks=3: must be a dualprop.Callback"),
    ],
)
def test_wrong_arguments_are_one_line(change, named):
    net, rule, optimizer = parts()
    arguments = {"net": net, "rule": rule, "optimizer": optimizer, "data": batches(), **change}
    with pytest.raises(DualpropError, match=named) as caught:
        dp.Trainer(**arguments)
    assert "\n" not in str(caught.value)


# What a person sees


def test_a_line_an_epoch_on_stderr_unless_nobody_wants_it(quick, tmp_path, capfd):
    dp.train(quick, tmp_path / "loud")
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split("  ")[:2] for line in err.splitlines()] == [
        ["dp on digits, seed 0", f"epoch {n}/2"] for n in (1, 2)
    ]
    dp.train(quick, tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")


def test_an_optimizer_of_another_net_and_a_wrong_number_of_epochs_are_refused():
    net, batches = dp.nets.mlp([4, 3]), [(torch.randn(2, 4), torch.randint(3, (2,)))]
    others = torch.optim.SGD(dp.nets.mlp([4, 3]).parameters(), lr=0.1)
    with refused("^optimizer: steps none of the net's parameters"):
        dp.Trainer(net, dp.DualProp(net), others, batches)
    with refused("^optimizer=None"):
        dp.Trainer(net, dp.DualProp(net), None, batches)
    trainer = dp.Trainer(net, dp.DualProp(net), torch.optim.SGD(net.parameters(), lr=0.1), batches)
    for epochs in (0, -1, True, 1.5, None, "2"):
        with refused("^epochs="):
            trainer.fit(epochs)


def test_several_inputs_are_trained_and_evaluated_on():
    """A loader makes lists of their tuples; the sum of two inputs' drives is that of one which holds both."""
    one, rule, opt = parts()
    weight, bias = one.stack[0].synapse.weight, one.stack[0].synapse.bias
    g = dp.Graph()
    x, z = g.input("x"), g.input("z")
    edges = {x: dp.Dense(4, 9), z: dp.Dense(2, 9, bias=False)}
    h = g.layer("h", edges, "tanh")
    two = g.net([g.layer("y", {h: dp.Dense(9, 7)}, "linear")])
    with torch.no_grad():
        edges[x].weight.copy_(weight[:, :4])
        edges[x].bias.copy_(bias)
        edges[z].weight.copy_(weight[:, 4:])
        two.stack[1].synapse.load_state_dict(one.stack[1].synapse.state_dict())
    split = [((x[k, :4], x[k, 4:]), y[k]) for x, y in batches() for k in range(len(x))]
    pairs = DataLoader(split, batch_size=8)
    trainer = dp.Trainer(one, rule, opt, batches())
    other = dp.Trainer(
        two, dp.DualProp(two, loss="cross_entropy", beta=0.1), torch.optim.SGD(two.parameters(), lr=0.1), pairs
    )
    assert other.fit(2)["loss"] == pytest.approx(trainer.fit(2)["loss"], rel=1e-5)
    assert other.evaluate(pairs) == pytest.approx(trainer.evaluate(batches()), rel=1e-5)


def test_several_outputs_are_refused():
    g = dp.Graph()
    x = g.input("x")
    net = g.net([g.layer(name, {x: dp.Dense(6, 7)}, "linear") for name in "ab"])
    with refused("net: has 2 outputs, but metrics are of one"):
        dp.Trainer(net, dp.DualProp(net), torch.optim.SGD(net.parameters(), lr=0.1), batches())
