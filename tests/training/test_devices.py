"""Runs on devices: what is recorded, gone on with and refused."""

import json

import pytest
import torch

import dualprop as dp
from dualprop.training.experiment import build

FAST = {"data": "digits", "hidden": (12,), "epochs": 2, "batch_size": 100, "alignment": False, "lr": 0.01}
NOISY = {
    "states": [{"channel": "noise", "sigma": 0.1}, {"channel": "quantised", "bits": 4}],
    "weights": {"channel": "variation", "gain": 0.1},
}
PULSED = {"devices": {"updates": {"device": "ReRamES"}}, "optimizer": "pulsed-sgd", "lr": 0.1}


class Stop(dp.Callback):
    """In the middle of the second epoch."""

    def step(self, trainer):
        if trainer.step == 20:
            raise dp.Interrupted("enough")


@pytest.mark.parametrize("own", [{"devices": NOISY}, PULSED], ids=["channels", "pulses"])
def test_a_run_goes_on_bit_for_bit(tmp_path, own):
    settings = dp.Settings(**{**FAST, **own})
    whole = dp.train(settings, tmp_path / "whole", progress=False)
    with pytest.raises(dp.Interrupted):
        dp.train(settings, tmp_path / "parts", progress=False, callbacks=[Stop()])
    again = dp.resume(tmp_path / "parts", progress=False)
    assert again.test_accuracy == whole.test_accuracy
    nets = [dp.load_net(tmp_path / name) for name in ("whole", "parts")]
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(p, q)
    recorded = json.loads((tmp_path / "whole" / "settings.json").read_text())
    assert recorded["devices"] == settings.as_dict()["devices"]


def test_seeds_are_other_devices_and_other_draws():
    x = torch.rand(5, 64)
    said = []
    for seed in (0, 0, 1):
        made = build(dp.Settings(**FAST, devices=NOISY, seed=seed))
        made.trainer.net.load_state_dict(build(dp.Settings(**FAST)).trainer.net.state_dict())
        said.append(made.trainer.rule.predict(x))
    assert torch.equal(said[0], said[1])
    assert not torch.equal(said[0], said[2])


REFUSED = {
    "devices: unknown name 'stats'; did you mean 'states'": {"devices": {"stats": NOISY["states"]}},
    "states: belongs into devices": {"rule_settings": {"states": NOISY["states"]}},
    "optimizer='adam': devices has updates": {"devices": {"updates": {"device": "EcRam"}}},
    "unknown device 'EcRom': did you mean 'EcRam'": {**PULSED, "devices": {"updates": {"device": "EcRom"}}},
    "unknown channel 'nose': did you mean 'noise'": {"devices": {"states": {"channel": "nose"}}},
    "bits=0: must be a whole number in [1, 16]": {"devices": {"states": {"channel": "quantised", "bits": 0}}},
    "devices.updates: has bits and device": {**PULSED, "devices": {"updates": {"bits": 4, "device": "EcRam"}}},
    "bits=17": {**PULSED, "devices": {"updates": {"bits": 17}}},
    "weight_decay: not with pulsed-sgd": {**PULSED, "weight_decay": 0.1},
    "fused_update: not with pulsed-sgd": {**PULSED, "fused_update": True},
    "compile: not with channels": {"devices": NOISY, "compile": True},
    "devices.updates='EcRam': must be a table": {**PULSED, "devices": {"updates": "EcRam"}},
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_no_run_can_have_is_refused_in_one_line(says, tmp_path):
    with pytest.raises(dp.DualpropError) as caught:
        dp.train(dp.Settings(**{**FAST, **REFUSED[says]}), tmp_path / "run", progress=False)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
