"""What the command line makes of words for devices."""

import json

import pytest

import dualprop as dp
from dualprop.data import load


def test_short_words_and_files(dualprop, tmp_path):
    (tmp_path / "mine.toml").write_text('[[weights]]\nchannel = "noise"\nsigma = 0.01\n')
    words = ["--data", "digits", "--hidden", "8", "--epochs", "1", "--no-alignment", "--device", "cpu"]
    short = ["--devices", "mine.toml", "--noise", "0.1", "--state-bits", "4", "--weight-bits", "2"]
    code, _, err = dualprop("train", *words, *short, "--run", "run")
    assert code == 0, err
    recorded = json.loads((tmp_path / "run" / "settings.json").read_text())["devices"]
    assert recorded["states"] == [{"channel": "noise", "sigma": 0.1}, {"channel": "quantised", "bits": 4}]
    assert recorded["weights"] == [{"channel": "noise", "sigma": 0.01}, {"channel": "quantised", "bits": 2}]


def test_wrong_words_are_one_line(dualprop):
    for words, says in (
        (["--state-bits", "17"], "bits=17: must be a whole number in [1, 16]"),
        (["--noise", "-1"], "noise=-1"),
        (["--noise", "nan"], "noise='nan'"),
        (["--devices", "missing.toml"], "missing.toml: no such file"),
    ):
        code, _, err = dualprop("train", "--data", "digits", *words)
        assert code == 2
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_a_comparison_says_what_it_was_made_on_and_what_hardware_would_pay(dualprop, tmp_path):
    words = ["--data", "digits", "--hidden", "8", "--epochs", "2", "--no-alignment", "--noise", "0.1"]
    paid = ["--energy", "multiply_add=1;bit=0;write=0", "--to-accuracy", "0.05", "--out", "c"]
    code, out, err = dualprop("compare", "--rules", "bp,dp", "--seeds", "0", *words, *paid)
    assert code == 0, err
    assert "on devices (states noise sigma 0.1) in training and test" in " ".join(out.split())
    head, row = (tmp_path / "c" / "table.csv").read_text().splitlines()[::2]
    row = dict(zip(head.split(","), row.split(","), strict=True))
    macs = 64 * 8 + 8 * 10 + 8 * 10
    assert float(row["MACs / sample"]) == macs
    assert float(row["nJ / sample"]) == pytest.approx(macs / 1000, rel=1e-3)
    samples = float(row["samples to 5 %"])
    assert float(row["mJ to 5 %"]) == pytest.approx(1e-9 * macs * samples, rel=0.01)
    assert float(row["zeros up %"]) == 0  # in noise none is left
    assert "multiply_add=1" in " ".join(out.split())
    before = (tmp_path / "c" / "table.md").read_text()
    code, _, err = dualprop("compare", "--resume", "c")  # which knows what was asked for
    assert code == 0, err
    assert (tmp_path / "c" / "table.md").read_text() == before


def test_constants_that_there_are_not_are_one_line(dualprop):
    for words, says in (
        (["--energy", "mac=1"], "mac: Energy has no such"),
        (["--energy", "bit=-1"], "bit=-1"),
        (["--to-accuracy", "0.9"], "to_accuracy=0.9: goes with energy"),
        (["--energy", "default", "--to-accuracy", "90"], "to_accuracy=90"),
    ):
        code, _, err = dualprop("compare", "--data", "digits", "--rules", "bp", *words)
        assert code == 2
        assert says in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_a_run_is_tested_again_on_its_own_devices_or_on_others(dualprop, tmp_path):
    words = ["--data", "digits", "--hidden", "24", "--epochs", "1", "--lr", "0.01", "--no-alignment"]
    words += ["--loss", "cross_entropy", "--beta", "5"]
    code, _, err = dualprop("train", *words, "--state-bits", "1", "--run", "run")
    assert code == 0, err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    said = f"loss {result['test_loss']:.4f}"
    _, own, _ = dualprop("eval", "run")
    assert f"accuracy {result['test_accuracy']:.2%}" in own
    assert said in own
    assert "on devices (states quantised bits 1)" in own
    net, data = dp.load_net(tmp_path / "run"), load("digits")
    x, y = data.test.images.float() / 255, data.test.labels
    accuracy = float((net(x).argmax(1) == y).float().mean())
    _, ideal, _ = dualprop("eval", "run", "--devices", "ideal")
    assert f"accuracy {accuracy:.2%}" in ideal
    assert "on devices" not in ideal
    _, other, _ = dualprop("eval", "run", "--noise", "0.01", "--weight-bits", "8")  # calibrated on training data
    assert "on devices (states noise sigma 0.01, weights quantised bits 8)" in other
    assert said not in other
    code, _, err = dualprop("eval", "run", "--state-bits", "17")
    assert (code, err.count("\n")) == (2, 1)
