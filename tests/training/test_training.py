"""The loop: it learns, counts, validates, records, and stops when numbers go astray."""

import json
import math
from dataclasses import replace

import pytest
import torch

from dualprop import RULES, train
from dualprop.errors import DivergenceError
from dualprop.runs.folder import Run
from dualprop.training.callbacks import Best
from dualprop.training.experiment import build
from dualprop.training.optim.optimizers import LR_SCHEDULES, OPTIMIZERS
from dualprop.training.trainer import Trainer
from tests.slow import but_slow


@pytest.mark.parametrize("rule", but_slow(RULES, *(name for name in RULES if name != "dp")))
def test_every_rule_learns_real_digits(rule, quick, tmp_path):
    settings = replace(
        quick, rule=rule, hidden=(64, 64), epochs=15, batch_size=50, optimizer="sgd", lr=0.05, weight_decay=5e-3
    )
    settings = replace(settings, lr_schedule="cosine", warmup_epochs=2.0)
    assert train(settings, tmp_path / "run").test_accuracy > 0.9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_trains(optimizer, quick, tmp_path):
    lr = {"sgd": 0.05, "pulsed-sgd": 0.3}.get(optimizer, 2e-3)
    settings = replace(quick, optimizer=optimizer, lr=lr, hidden=(64,), epochs=6)
    assert train(settings, tmp_path / "run").test_accuracy > 0.8


def test_cross_entropy_bf16_and_cosine(quick, tmp_path):
    settings = replace(
        quick, loss="cross_entropy", precision="bf16", lr_schedule="cosine", warmup_epochs=1.0, epochs=6, lr=5e-3
    )
    settings = replace(settings, hidden=(64,))
    assert train(settings, tmp_path / "run").test_accuracy > 0.8
    checkpoint = Run.open(tmp_path / "run").load()
    assert all(weight.dtype == torch.float32 for weight in checkpoint["net"].values())


def test_same_seed_same_run_and_another_seed_another(quick, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(quick, seed=seed), tmp_path / name)
    a, b, c = (Run.open(tmp_path / name).load()["net"] for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[name], c[name]) for name in a)


def test_global_random_state_does_not_matter(quick, tmp_path):
    for name, seed in (("a", 1), ("b", 2)):
        torch.manual_seed(seed)
        train(quick, tmp_path / name)
    a, b = (Run.open(tmp_path / name).load()["net"] for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_metrics_are_those_of_the_definition(quick, tmp_path):
    """One epoch without learning: loss and accuracy of the initial net, counted by hand."""
    settings = replace(quick, lr=1e-30, epochs=1, val_fraction=0.2, alignment=True)
    train(settings, tmp_path / "run")
    e = build(settings)
    part = e.trainer.data.split
    images, labels = part.batch(torch.arange(len(part)))
    with torch.no_grad():
        z = e.trainer.net(images / 255)
    y = torch.eye(10)[labels]
    loss = float((0.5 * (z - y) ** 2).sum(1).mean())
    accuracy = float((z.argmax(1) == labels).double().mean())
    records = Run.open(tmp_path / "run").metrics()
    epoch = next(record for record in records if record["kind"] == "epoch")
    assert epoch["loss"] == pytest.approx(loss, rel=1e-5)
    assert epoch["accuracy"] == pytest.approx(accuracy)
    assert epoch["step"] == math.ceil(len(part) / 100)
    assert len(epoch["cosine"]) == 3
    trains = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trains] == [5, 10]
    assert len(part) + len(e.validation.batches.split) == len(e.dataset.train)


def test_the_best_validation_weights_are_kept_and_tested_once(quick, tmp_path, monkeypatch):
    tested = []
    scores = iter([(0.5, 0.8), (0.4, 0.9), (0.3, 0.9), (0.2, 0.7)])

    def evaluate(self, batches):
        if (score := next(scores, None)) is None:
            tested.append({k: v.clone() for k, v in self.net.state_dict().items()})
            return {"loss": 0.0, "accuracy": 0.5}
        return dict(zip(("loss", "accuracy"), score, strict=True))

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    result = train(replace(quick, epochs=4), tmp_path / "run")
    assert result.best_epoch == 3  # as accurate as epoch 2, with the lower loss
    assert result.val_accuracy == 0.9
    assert len(tested) == 1
    best = Run.open(tmp_path / "run").load_weights("best.safetensors")[0]
    last = Run.open(tmp_path / "run").load()["net"]
    assert all(torch.equal(tested[0][name], best[name]) for name in best)
    assert not any(torch.equal(last[name], best[name]) for name in best)


def test_best_prefers_accuracy_then_loss():
    def of(accuracy, loss):
        return Best(1, {"accuracy": accuracy, "loss": loss}, {})

    best = of(0.9, 0.5)
    assert of(0.91, 9.0).better_than(best)
    assert of(0.9, 0.4).better_than(best)
    assert not of(0.9, 0.5).better_than(best)
    assert best.better_than(None)


def test_without_validation_the_last_weights_are_tested(quick, tmp_path):
    result = train(replace(quick, val_fraction=0.0), tmp_path / "run")
    assert result.best_epoch == 2
    assert result.val_accuracy is None
    run = Run.open(tmp_path / "run")
    assert all(torch.equal(v, run.load()["net"][k]) for k, v in run.load_weights("best.safetensors")[0].items())
    json.loads((run.path / "result.json").read_text(), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))


def test_divergence_stops_with_step_layer_and_last_good_checkpoint(quick, tmp_path):
    settings = replace(quick, rule="bp", optimizer="sgd", momentum=0.0, lr=1e25, epochs=50)
    with pytest.raises(
        DivergenceError, match=r"at step \d+ .*layer \d.*checkpoint\.safetensors, of step \d+"
    ) as caught:
        train(settings, tmp_path / "run")
    assert "\n" not in str(caught.value)
    good = Run.open(tmp_path / "run").load()["net"]
    assert all(bool(torch.isfinite(weight).all()) for weight in good.values())


def test_divergence_names_the_first_bad_layer(quick, tmp_path, monkeypatch):
    poison = torch.optim.Adam.step

    def step(self, *arguments, **settings):
        result = poison(self, *arguments, **settings)
        with torch.no_grad():
            self.param_groups[0]["params"][2][0, 0] = math.nan  # W_1, the weights into layer 2
        return result

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(
        DivergenceError,
        match=r"^at step 2 \(epoch 1\) the loss became nan, first in layer 2 \(weight\);.*of step 0",
    ):
        train(quick, tmp_path / "run")


def test_cosine_schedule_is_its_formula(quick):
    s = replace(quick, lr=0.1, warmup_lr=0.01, warmup_epochs=2.0, epochs=10, lr_schedule="cosine")
    at = LR_SCHEDULES["cosine"]
    assert at(s, 0) == pytest.approx(0.01)
    assert at(s, 1) == pytest.approx(0.055)
    assert at(s, 2) == pytest.approx(0.1)
    assert at(s, 6) == pytest.approx(0.05)
    assert at(s, 10) == pytest.approx(0.0)
    assert LR_SCHEDULES["constant"](s, 7.5) == 0.1


def test_learning_rate_of_each_step_reaches_the_optimizer(quick, tmp_path):
    settings = replace(quick, lr_schedule="cosine", warmup_epochs=1.0, log_every=1, epochs=2)
    train(settings, tmp_path / "run")
    rates = [r["lr"] for r in Run.open(tmp_path / "run").metrics() if r["kind"] == "train"]
    steps = len(rates) // 2
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(settings.lr)
    assert rates.index(max(rates)) == steps
    assert rates == sorted(rates[:steps]) + sorted(rates[steps:], reverse=True)


def test_multi_step_rules_step_the_optimizer_once_per_round(quick, tmp_path, monkeypatch):
    counts = []
    original = torch.optim.Adam.step

    def step(self, *arguments, **settings):
        counts.append(1)
        return original(self, *arguments, **settings)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    for rule, rounds in (("p-dp", 1), ("ms-dp", 3)):
        counts.clear()
        train(replace(quick, rule=rule, epochs=1), tmp_path / rule)
        steps = Run.open(tmp_path / rule).load()["counters"]["step"]
        assert len(counts) == rounds * steps


def test_tensorboard_sees_the_same_numbers(quick, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(replace(quick, alignment=True), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    epochs = [r for r in Run.open(tmp_path / "run").metrics() if r["kind"] == "epoch"]
    assert [e.step for e in events.Scalars("epoch/loss")] == [r["step"] for r in epochs]
    assert [e.value for e in events.Scalars("epoch/val_accuracy")] == pytest.approx(
        [r["val_accuracy"] for r in epochs]
    )
    assert events.Scalars("cosine/layer 1")


@pytest.mark.parametrize(("rule", "own"), [("ep", True), ("dp", False), ("dtp", False)])
def test_epochs_record_the_cosine_to_a_gradient_of_the_rules_own(rule, own, quick, tmp_path):
    train(replace(quick, rule=rule, alignment=True, epochs=1), tmp_path / "run")
    (epoch,) = (r for r in Run.open(tmp_path / "run").metrics() if r["kind"] == "epoch")
    assert len(epoch["cosine"]) == 3
    assert ("own" in epoch) == own
    assert not own or min(epoch["own"]) > 0.8


def test_a_net_with_cycles_records_the_own_one_alone(quick, tmp_path):
    settings = replace(quick, net="hopfield_mlp", hidden=(8,), alignment=True, epochs=1, lr=1e-6)
    settings = replace(settings, rule_settings={"schedule": "sweep:50", "beta": 0.1})
    train(settings, tmp_path / "run")
    (epoch,) = (r for r in Run.open(tmp_path / "run").metrics() if r["kind"] == "epoch")
    assert "cosine" not in epoch
    assert min(epoch["own"]) > 0.5
