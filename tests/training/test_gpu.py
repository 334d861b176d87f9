"""Training on a GPU, where there is one."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from dualprop import RULES, resume, train
from dualprop.runs.folder import Run
from dualprop.training.experiment import build

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns_digits(rule, quick, tmp_path):
    settings = replace(quick, device="cuda", rule=rule, hidden=(64, 64), epochs=15, batch_size=50, alignment=True)
    assert train(replace(settings, optimizer="sgd", lr=0.05), tmp_path / "run").test_accuracy > 0.9


@pytest.mark.parametrize("rule", ["bp", "dp", "kp-dp"])
def test_the_first_steps_are_those_of_a_cpu(rule, quick):
    """The same batches, initial weights and updates, to float32's rounding."""
    weights = {}
    for device in ("cpu", "cuda"):
        e = build(replace(quick, rule=rule, device=device, optimizer="sgd", lr=0.05, augment=True))
        for x, y in islice(e.trainer.data, 3):
            e.trainer.learn(x, y)
        weights[device] = {name: value.cpu() for name, value in e.trainer.net.state_dict().items()}
    for name, value in weights["cpu"].items():
        torch.testing.assert_close(weights["cuda"][name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"fused_update": True, "ema": 0.9}, {"clip_norm": 0.5}])
def test_options_learn_digits(change, quick, tmp_path):
    settings = replace(quick, device="cuda", hidden=(64, 64), epochs=15, optimizer="sgd", lr=0.1, **change)
    assert train(settings, tmp_path / "run").test_accuracy > 0.85


def test_a_run_goes_on_on_a_cpu(quick, tmp_path):
    """What is on disk belongs to no device."""
    train(replace(quick, device="cuda"), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    checkpoint = run.load()
    assert all(value.device.type == "cpu" for value in checkpoint["net"].values())
    (run.path / "result.json").unlink()
    assert resume(run.path, {"device": "cpu"}).best_epoch in (1, 2)
