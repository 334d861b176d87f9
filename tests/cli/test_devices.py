"""What the command line makes of words for devices."""

import json


def test_short_words_and_files(dualprop, tmp_path):
    (tmp_path / "mine.toml").write_text('[[weights]]\nchannel = "noise"\nsigma = 0.01\n')
    words = ["--data", "digits", "--hidden", "8", "--epochs", "1", "--no-alignment", "--device", "cpu"]
    short = ["--devices", "mine.toml", "--noise", "0.1", "--state-bits", "4", "--weight-bits", "2"]
    code, _, err = dualprop("train", *words, *short, "--run", "run")
    assert code == 0, err
    recorded = json.loads((tmp_path / "run" / "settings.json").read_text())["devices"]
    assert recorded["states"] == [{"channel": "noise", "sigma": 0.1}, {"channel": "quantised", "bits": 4}]
    assert recorded["weights"] == [{"channel": "noise", "sigma": 0.01}, {"channel": "quantised", "bits": 2}]


def test_a_comparison_says_what_it_was_made_on(dualprop, tmp_path):
    words = ["--data", "digits", "--hidden", "8", "--epochs", "1", "--no-alignment", "--noise", "0.1"]
    code, out, err = dualprop("compare", "--rules", "bp,dp", "--seeds", "0", *words, "--out", "c")
    assert code == 0, err
    assert "on devices (states noise sigma 0.1) in training and test" in " ".join(out.split())


def test_wrong_words_are_one_line(dualprop):
    for words, says in (
        (["--state-bits", "17"], "bits=17: must be a whole number in [1, 16]"),
        (["--noise", "-1"], "sigma=-1"),
        (["--noise", "nan"], "sigma='nan'"),
        (["--devices", "missing.toml"], "missing.toml: no such file"),
    ):
        code, _, err = dualprop("train", "--data", "digits", *words)
        assert code == 2
        assert says in err
        assert err.count("\n") == 1
