"""Runs of one's own data, net, rule and optimizer: trained, recorded, gone on with bit for bit, compared."""

from __future__ import annotations

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

import dualprop as dp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
TARGETS = X[:, :2] @ RNG.normal(size=(2, 3)).astype(np.float32)
SAMPLES = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
QUICK = {
    "hidden": (8,),
    "epochs": 1,
    "batch_size": 10,
    "lr": 0.01,
    "threads": 1,
    "device": "cpu",
    "alignment": False,
}


def settings(**changes) -> dp.Settings:
    return dp.Settings(**{**QUICK, **changes})


def own_objects() -> dict:
    torch.manual_seed(7)
    net = dp.nets.mlp([6, 5, 2])
    return {"net": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)}


def own_rule() -> dict:
    torch.manual_seed(7)
    net = dp.nets.mlp([6, 5, 2])
    return {"rule": dp.DualProp(net, beta=0.3), "optimizer": torch.optim.SGD(net.parameters(), lr=0.1)}


@pytest.mark.parametrize("objects", [dict, own_objects, own_rule])
@pytest.mark.parametrize("data", [(X, Y), SAMPLES, DataLoader(SAMPLES, 7), (X, TARGETS[:, :2])], ids=type)
def test_a_run_goes_on_bit_for_bit(tmp_path, data, objects):
    whole = dp.train(settings(epochs=2), tmp_path / "whole", data=data, **objects(), progress=False)
    dp.train(settings(), tmp_path / "parts", data=data, **objects(), progress=False)
    with pytest.raises(dp.DualpropError, match=r"data: the run was started from Python with one of its own"):
        dp.resume(tmp_path / "parts", {"epochs": 2}, **objects())
    parts = dp.resume(tmp_path / "parts", {"epochs": 2}, data=data, **objects(), progress=False)
    assert (parts.test_loss, parts.test_accuracy) == (whole.test_loss, whole.test_accuracy)
    weights = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "parts")]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])


def test_regression_has_a_loss_and_no_accuracy(tmp_path):
    result = dp.train(settings(epochs=20), tmp_path / "run", data=(X, TARGETS), progress=False)
    assert result.test_accuracy is None
    assert result.test_loss < 0.5 * (TARGETS**2).sum(1).mean() / 2
    assert dp.load_net(tmp_path / "run")(torch.from_numpy(X)).shape == (60, 3)


def test_what_was_one_s_own_is_recorded(tmp_path):
    objects = own_rule()
    dp.train(settings(), tmp_path / "run", data=(X, Y), **objects, progress=False)
    resolved = json.loads((tmp_path / "run" / "resolved.json").read_text())
    assert resolved["own"].keys() == {"data", "net", "rule", "optimizer"}
    assert resolved["own"]["rule"] == "dualprop.rules.dual_prop.DualProp(beta=0.3)"
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["data"] == "data of one's own"
    with pytest.raises(
        dp.DualpropError, match=r"its net is one of its own; give it one: load_net\(run, net=...\)"
    ):
        dp.load_net(tmp_path / "run")
    net = dp.load_net(tmp_path / "run", net=dp.nets.mlp([6, 5, 2]))
    for ours, trained in zip(net.parameters(), objects["rule"].net.parameters(), strict=True):
        assert torch.equal(ours, trained)


def test_changed_arrays_are_refused_in_one_line(tmp_path):
    dp.train(settings(), tmp_path / "run", data=(X, Y), progress=False)
    with pytest.raises(
        dp.DualpropError, match="contradicts the run, which was started with other content"
    ) as error:
        dp.resume(tmp_path / "run", {"epochs": 2}, data=(X, 1 - Y))
    assert "\n" not in str(error.value)


def test_a_job_that_is_started_again_goes_on(tmp_path):
    first = dp.train(settings(), tmp_path / "run", data=(X, Y), **own_objects(), progress=False)
    again = dp.train(settings(), tmp_path / "run", data=(X, Y), **own_objects(), resume=True, progress=False)
    assert again == first


@pytest.mark.parametrize("targets", [Y, TARGETS], ids=["classes", "numbers"])
def test_rules_are_compared_on_one_s_own_data(tmp_path, targets):
    net = dp.nets.mlp([6, 5, 3])
    before = copy.deepcopy(net.state_dict())
    common = {**QUICK, "hidden": None, "alignment": True}
    report = dp.compare(["bp", "dp"], [0, 1], common, tmp_path / "all", data=(X, targets), net=net)
    assert "test accuracy %" in report.markdown() if targets is Y else "test loss" in report.markdown()
    assert (tmp_path / "all" / "learning-curves.png").exists()
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])
    shutil.rmtree(tmp_path / "all" / "dp-seed1")
    with pytest.raises(dp.DualpropError, match="data: the run was started"):
        dp.resume_comparison(tmp_path / "all", net=net)
    again = dp.resume_comparison(tmp_path / "all", data=(X, targets), net=net)
    assert [r.result.test_loss for r in again.records] == [r.result.test_loss for r in report.records]


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / name / f"{number}.png")
    return tmp_path / "pictures"


def test_a_folder_may_move_and_may_not_change(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dp.train(settings(data="folder:pictures", val_fraction=0.0), "run", progress=False)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["data"] == f"folder:{folder}"
    monkeypatch.chdir("/")
    dp.resume(tmp_path / "run", {"epochs": 2}, progress=False)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(
        dp.DataError, match=r"no such folder; .* if the folder has moved, say where by data=folder:"
    ):
        dp.resume(tmp_path / "run", {"epochs": 3})
    moved = {"data": f"folder:{tmp_path / 'elsewhere'}", "epochs": 3}
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    dp.resume(tmp_path / "run", moved, progress=False)
    for change in (
        lambda root: (root / "train" / "cat" / "0.png").rename(root / "train" / "dog" / "new.png"),
        lambda root: (root / "train" / "cat" / "1.png").unlink(),
        lambda root: shutil.copy(root / "train" / "cat" / "2.png", root / "train" / "cat" / "3.png"),
        lambda root: [(root / part / "dog").rename(root / part / "wolf") for part in ("train", "test")],
    ):
        change(tmp_path / "elsewhere")
        with pytest.raises(dp.DualpropError, match="contradicts the run, which was started with other content"):
            dp.resume(tmp_path / "again", moved)
