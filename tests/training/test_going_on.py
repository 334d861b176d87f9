"""More epochs, another run's weights, a job that is started again and again, and signals that ask to stop."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dualprop as dp
from dualprop import load_net, resume, train
from dualprop.errors import CheckpointError, DivergenceError, Interrupted
from dualprop.runs.folder import Run
from dualprop.training.interrupt import Interrupt
from tests.oracles.refused import refused
from tests.training.test_resume import assert_same


class At(dp.Callback):
    """Does something after a step."""

    def __init__(self, number, act):
        self.number, self.act = number, act

    def step(self, trainer):
        if trainer.step == self.number:
            self.act()


def stop(number):
    return At(number, lambda: signal.raise_signal(signal.SIGINT))


def same_weights(ours, theirs):
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


# More epochs


@pytest.mark.parametrize("rule", ["l-dp", "bp"])
def test_more_epochs_of_a_finished_run_are_those_of_the_longer_run(rule, quick, tmp_path):
    settings = replace(quick, rule=rule, ema=0.5)
    train(replace(settings, epochs=3), tmp_path / "whole")
    train(replace(settings, epochs=1), tmp_path / "run")
    result = resume(tmp_path / "run", {"epochs": 3})
    assert_same(tmp_path / "whole", tmp_path / "run")
    assert result == resume(tmp_path / "run")
    assert Run.open(tmp_path / "run").settings.epochs == 3


def test_a_run_that_was_to_go_on_and_was_killed_goes_on(quick, tmp_path):
    train(replace(quick, epochs=3), tmp_path / "whole")
    train(replace(quick, epochs=1), tmp_path / "run")
    with pytest.raises(Interrupted):
        resume(tmp_path / "run", {"epochs": 3}, callbacks=[stop(15)])
    assert Run.open(tmp_path / "run").result is None
    resume(tmp_path / "run")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_epochs_that_the_learning_rate_ends_with_cannot_become_more(quick, tmp_path):
    train(replace(quick, epochs=1, lr_schedule="cosine"), tmp_path / "ends")
    with refused("^epochs=2: contradicts the run, which was started with 1; its learning rate ends with them"):
        resume(tmp_path / "ends", {"epochs": 2})
    train(replace(quick, epochs=1, lr_schedule="cosine", lr_epochs=0.5, min_lr=1e-4), tmp_path / "ended")
    assert resume(tmp_path / "ended", {"epochs": 2}).best_epoch in (1, 2)


def test_fewer_epochs_than_were_trained_are_refused(quick, tmp_path):
    train(quick, tmp_path / "run")
    with refused("of epoch 2, but the run is to have 1"):
        resume(tmp_path / "run", {"epochs": 1})
    assert Run.open(tmp_path / "run").result is not None


# Another run's weights


def test_a_run_begins_with_another_s_weights_and_needs_it_no_more(quick, tmp_path):
    train(quick, tmp_path / "first")
    settings = replace(quick, init_from=str(tmp_path / "first"), rule="bp", lr=1e-30, epochs=1)
    train(settings, tmp_path / "second")
    first, second = (load_net(tmp_path / name).state_dict() for name in ("first", "second"))
    assert same_weights(first, second)
    shutil.rmtree(tmp_path / "first")
    assert resume(tmp_path / "second", {"epochs": 2}).best_epoch in (1, 2)


def test_weights_of_another_net_are_no_beginning(quick, tmp_path):
    train(replace(quick, hidden=(5,)), tmp_path / "other")
    with refused("other: weights of another net"):
        train(replace(quick, init_from=str(tmp_path / "other")), tmp_path / "run")
    with refused("nowhere: not a run folder"):
        train(replace(quick, init_from=str(tmp_path / "nowhere")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# A job that is started again and again


def test_one_call_starts_goes_on_and_answers(quick, tmp_path):
    settings = replace(quick, rule="p-dp", rule_settings={"schedule": "parallel"})  # recorded as parallel:3
    train(settings, tmp_path / "whole")
    for number in (5, 20):
        with pytest.raises(Interrupted):
            train(settings, tmp_path / "run", resume=True, callbacks=[stop(number)])
    results = [train(settings, tmp_path / "run", resume=True) for _ in range(2)]
    assert results[0] == results[1]
    assert_same(tmp_path / "whole", tmp_path / "run")
    with refused(r"^lr=0\.5: contradicts the run"):
        train(replace(settings, lr=0.5), tmp_path / "run", resume=True)
    with refused("^rule_settings=.*: contradicts the run"):
        train(replace(settings, rule_settings={"schedule": "parallel:4"}), tmp_path / "run", resume=True)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal")
def test_sigusr1_saves_and_stops_however_often_it_comes(quick, tmp_path):
    train(quick, tmp_path / "whole")

    def twice():
        signal.raise_signal(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Interrupted, match="stopped after step 4; go on with"):
        train(quick, tmp_path / "run", callbacks=[At(4, twice)])
    assert signal.getsignal(signal.SIGUSR1) is before
    resume(tmp_path / "run")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_second_ctrl_c_after_sigusr1_acts_as_usual():
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGUSR1)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_finished_run_without_its_checkpoint_says_so(quick, tmp_path, caplog):
    result = train(quick, tmp_path / "run")
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    assert resume(tmp_path / "run") == result
    assert "finished; its checkpoint.safetensors is gone" in caplog.text


# Batches of one's own


@pytest.mark.parametrize("own_generator", [False, True])
def test_a_shuffling_loader_goes_on_within_an_epoch_and_between_two(own_generator):
    """The global generator, or one of its own, draws the order; a rule that draws, too, does not disturb it."""

    def made():
        torch.manual_seed(0)
        net = dp.nets.mlp([6, 9, 7], generator=torch.Generator().manual_seed(0))
        x, y = torch.randn(40, 6), torch.randint(7, (40,))
        generator = torch.Generator().manual_seed(3) if own_generator else None
        loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True, generator=generator)

        class Drawing(dp.Backprop):
            def update(self, x, y):
                return super().update(x + 0.1 * torch.randn_like(x), y)

        return dp.Trainer(net, Drawing(net), torch.optim.SGD(net.parameters(), lr=0.1), loader)

    whole = made()
    whole.fit(3)
    for at in (3, 5, 8, 10):
        stopped = made()
        stopped.callbacks.append(At(at, lambda: (_ for _ in ()).throw(InterruptedError())))
        with pytest.raises(InterruptedError):
            stopped.fit(3)
        state = stopped.state_dict()
        again = made()
        torch.manual_seed(99)
        again.load_state_dict(state)
        again.fit(3)
        assert same_weights(again.net.state_dict(), whole.net.state_dict()), at


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((torch.zeros(2, 4),), "^data: a batch is a tuple of 1, but it must be a pair of inputs and targets"),
        ((torch.zeros(2, 4), torch.zeros(2), 3), "^data: a batch is a tuple of 3"),
        (torch.zeros(2, 4), "^data: a batch is a Tensor"),
        (3, "^data: a batch is a int"),
    ],
)
def test_batches_that_are_no_pairs_are_named(batch, said):
    net = dp.nets.mlp([4, 3])
    trainer = dp.Trainer(net, dp.Backprop(net), torch.optim.SGD(net.parameters(), lr=0.1), [batch])
    with refused(said):
        trainer.fit(1)


@pytest.mark.parametrize("state", [{}, {"net": {}}, 3, None, {"a": 1, 2: 3}])
def test_what_is_no_state_of_a_trainer_is_one_line(state):
    net = dp.nets.mlp([4, 3])
    batches = [(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))]
    trainer = dp.Trainer(net, dp.Backprop(net), torch.optim.SGD(net.parameters(), lr=0.1), batches)
    with refused("^state"):
        trainer.load_state_dict(state)


def test_callbacks_that_would_share_a_place_are_refused():
    class Mine(dp.Callback):
        name = "mine"

    net = dp.nets.mlp([4, 3])
    parts = (
        net,
        dp.Backprop(net),
        torch.optim.SGD(net.parameters(), lr=0.1),
        [(torch.zeros(2, 4), torch.zeros(2))],
    )
    with refused("^callbacks: 'mine' names more than one thing"):
        dp.Trainer(*parts, [Mine(), Mine()])
    Mine.name = "net"
    with refused("^callbacks: 'net' names more than one thing"):
        dp.Trainer(*parts, [Mine()])


@pytest.mark.parametrize("call", [lambda p: train(3, p), lambda p: train(dp.Settings(), 3), lambda p: resume(3)])
def test_arguments_of_another_kind_are_one_line(call, tmp_path):
    with refused("^(settings|run)"):
        call(tmp_path / "run")


# Losses that explode


def test_a_loss_that_explodes_stops_the_run(quick, tmp_path):
    settings = replace(quick, rule="bp", optimizer="sgd", momentum=0.0, lr=30.0, epochs=50)
    with pytest.raises(
        DivergenceError, match=r"^at step \d+ .* the loss became .*e\+\d+, from .* in the first batch"
    ) as c:
        train(settings, tmp_path / "run")
    assert "\n" not in str(c.value)


def test_a_loss_that_is_large_from_the_start_is_none_that_explodes():
    net = dp.nets.mlp([4, 3])
    batches = [(torch.randn(5, 4), 1e9 * torch.randn(5, 3)) for _ in range(3)]
    dp.Trainer(net, dp.Backprop(net), torch.optim.SGD(net.parameters(), lr=1e-3), batches).fit(2)


def test_an_optimizer_that_overflows_has_diverged(quick, tmp_path, monkeypatch):
    step = torch.optim.Adam.step

    def overflowing(self, *arguments, **settings):
        step(self, *arguments, **settings)
        self.state[self.param_groups[0]["params"][0]]["exp_avg_sq"].fill_(torch.inf)

    monkeypatch.setattr(torch.optim.Adam, "step", overflowing)
    with pytest.raises(DivergenceError, match=r"at step \d+ .*optimizer\.state\.0\.exp_avg_sq is NaN or infinite"):
        train(quick, tmp_path / "run")
    assert Run.open(tmp_path / "run").load()["counters"]["step"] == 0


# What a rule keeps may be infinite where it was so at first


class Least(dp.Backprop):
    """Keeps the least loss so far."""

    def __init__(self, net, *, loss="mse"):
        super().__init__(net, loss=loss)
        self.add_state("least", torch.tensor(torch.inf))

    def update(self, x, y):
        step = super().update(x, y)
        self.least = torch.minimum(self.least, step.loss)
        return step


def test_a_state_that_is_infinite_at_first_is_no_divergence(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(dp.RULES, "least", dp.Method(Least, "least"))
    settings = replace(quick, rule="least", epochs=1)
    with pytest.raises(Interrupted):
        train(settings, tmp_path / "run", callbacks=[stop(3)])
    resume(tmp_path / "run")
    assert float(Run.open(tmp_path / "run").load()["rule"][0]["least"]) < 1


# Quiet


def test_a_logger_that_is_to_be_quiet_is(quick, tmp_path, capfd):
    logger = logging.getLogger("dualprop")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        train(quick, tmp_path / "run")
    finally:
        logger.setLevel(before)
    assert capfd.readouterr() == ("", "")


# Disks that cannot be written


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk")
@pytest.mark.parametrize("filling", ["ab", "xb"])
def test_a_full_disk_is_one_line_with_the_way_on(filling, quick, tmp_path, monkeypatch):
    """Of the metrics, which are appended to, and of the event file, which is made anew."""
    opened = Path.open

    def full(self, mode="r", **settings):
        return opened(Path("/dev/full") if mode == filling else self, mode.replace("x", "w"), **settings)

    monkeypatch.setattr(Path, "open", full)
    path = tmp_path / "run"
    with pytest.raises(
        CheckpointError, match=rf"written \(No space left on device\); once it can, .*--resume {path}$"
    ):
        train(quick, path)
    monkeypatch.undo()
    assert resume(path).best_epoch in (1, 2)
