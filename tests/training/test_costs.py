"""What hardware would pay, beside what a run records: learning alone is counted, and nothing that is not asked."""

import json

import pytest
import torch

import dualprop as dp
from dualprop.training.callbacks import Costs

D = dp.devices
FAST = {"data": "digits", "hidden": (12,), "epochs": 2, "batch_size": 100, "lr": 0.01}


def epochs(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "epoch"]


@pytest.mark.parametrize("rule", ["bp", "dp"])
def test_a_run_records_what_learning_alone_has_cost(rule, tmp_path):
    """Validation and the comparison of gradients make products, too: they are in none of these."""
    dp.train(dp.Settings(rule=rule, **FAST), tmp_path / "run", progress=False, callbacks=[Costs()])
    up, down = 64 * 12 + 12 * 10, 12 * 10
    for epoch in epochs(tmp_path / "run"):
        assert epoch["measures"]["multiply_adds"] == up + down
        assert epoch["measures"]["weight_writes"] == pytest.approx(up / 100, rel=0.02)  # the last batch is smaller


class Stop(dp.Callback):
    """In the middle of the second epoch."""

    def step(self, trainer):
        if trainer.step == 25:
            raise dp.Interrupted("enough")


def test_a_run_that_goes_on_has_the_same_costs(tmp_path):
    settings = dp.Settings(**FAST, alignment=False)
    dp.train(settings, tmp_path / "whole", progress=False, callbacks=[Costs()])
    with pytest.raises(dp.Interrupted):
        dp.train(settings, tmp_path / "parts", progress=False, callbacks=[Costs(), Stop()])
    dp.resume(tmp_path / "parts", progress=False, callbacks=[Costs()])
    whole, parts = ([epoch["measures"] for epoch in epochs(tmp_path / name)] for name in ("whole", "parts"))
    assert whole == [pytest.approx(each, rel=1e-12) for each in parts]


def test_every_update_of_a_batch_is_paid_for():
    net, batches = dp.nets.mlp([4, 8, 3]), [(torch.randn(5, 4), torch.arange(5) % 3)]
    rule = dp.RULES["ms-dp"](net)
    numbers = dp.Trainer(net, rule, torch.optim.SGD(net.parameters(), 0.1), batches, [Costs()]).fit(1)
    assert numbers["measures"]["weight_writes"] == 3 * (4 * 8 + 8 * 3) / 5
