"""`--import FILE.py`: what a file of one's own registers is there like all else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dualprop import NETS, RULES, data

RULE = '''
import torch

import dualprop as dp
from dualprop.data import Dataset, Source, Split


class Scaled(dp.Backprop):
    """Back-propagation, scaled.

    Args:
        net: a net.
        loss: a loss.
        times: what its gradients are multiplied by.
    """

    def __init__(self, net, *, loss="mse", times: float = 1.0):
        super().__init__(net, loss=loss)
        self.times = times

    def plain(self, settings):
        return dict(settings)


def blobs(root):
    x = torch.arange(12.0).view(12, 1).expand(12, 3).contiguous()
    part = Split(x, (x[:, 0] > 6).long())
    return Dataset("blobs", part, part, ("low", "high"), (5.5,) * 3, (3.0,) * 3)


dp.RULES["scaled"] = dp.Method(Scaled, "scaled back-propagation")
dp.NETS["tiny"] = dp.nets.NetKind(lambda num_classes, in_shape, **_: dp.nets.mlp([*in_shape, 4, num_classes]))
dp.data.DATASETS["blobs"] = Source("blobs", "twelve numbers", blobs)
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that registers a rule, a net and a data set, all forgotten after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "my_rules.py"
    path.write_text(RULE)
    kept = [(registry, dict(registry)) for registry in (RULES, NETS, data.DATASETS)]
    yield path
    for registry, entries in kept:
        registry.clear()
        registry.update(entries)
    sys.modules.pop("my_rules", None)


@pytest.mark.parametrize("word", [("--import", "my_rules.py"), ("--import=my_rules.py",)])
def test_a_rule_a_net_and_a_data_set_of_one_s_own(dualprop, file, word):
    words = ("--rule", "scaled", "--net", "tiny", "--data", "blobs", "--epochs", "1", "--run", "run")
    code, out, err = dualprop("train", *word, *words, "--rule-settings", "times=2")
    assert code == 0, err
    assert "test accuracy" in out


@pytest.mark.slow  # a process of its own: options are made once in each
def test_the_settings_of_its_rule_are_options(file):
    words = ("--import", file, "train", "--rule", "scaled", "--data", "blobs", "--epochs", "1", "--run", "run")
    command = [sys.executable, "-m", "dualprop", *map(str, words), "--times", "2"]
    run = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads((file.parent / "run" / "settings.json").read_text())["rule_settings"] == {"times": 2.0}


def test_it_may_stand_before_the_command(dualprop, file):
    code, out, _ = dualprop("--import", file, "data", "list")
    assert code == 0
    assert "twelve numbers" in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.py", None, "--import='missing.py': must be a Python file that is there"),
        ("my.txt", "", "--import='my.txt': must be a Python file that is there, NAME.py"),
        ("json.py", "", "--import='json.py': a module 'json' is loaded already"),
        ("wrong.py", "x = 1\n1 / 0\n", "--import='wrong.py', line 2: ZeroDivisionError: division by zero"),
        ("worse.py", "def\n", "--import='worse.py': SyntaxError: invalid syntax"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(dualprop, tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(sys, "path", list(sys.path))
    if content is not None:
        (tmp_path / name).write_text(content)
    code, _, err = dualprop("train", "--import", name)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_the_option_needs_a_file(dualprop):
    code, _, err = dualprop("train", "--import")
    assert (code, err) == (2, "dualprop: error: --import: must name a Python file\n")


def test_the_help_tells_of_it(dualprop):
    _, out, _ = dualprop("--help")
    assert "--import FILE.py" in " ".join(out.split())
