"""The bar in a notebook: one output that is moved, and taken away at the end."""

import re
import sys
import types

from rich.console import Console

import dualprop as dp
from dualprop.training.callbacks import display


class Shown:
    """What a notebook would show."""

    def __init__(self):
        self.outputs = []

    def display(self, what, raw, display_id):
        assert raw
        assert display_id
        self.outputs.append([what])
        return types.SimpleNamespace(update=lambda new, raw: self.outputs[-1].append(new))


def watched(monkeypatch, tmp_path, epochs=2):
    shown = Shown()
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=shown.display))
    monkeypatch.setattr(display, "stderr", lambda: Console(force_jupyter=True, quiet=True))
    monkeypatch.setattr(display, "REFRESHES", 1e9)  # at every step
    settings = dp.Settings(data="digits", hidden=(8,), epochs=epochs, alignment=False)
    dp.train(settings, tmp_path / "run")
    return shown.outputs


def test_one_output_moves_with_the_batches_and_goes(monkeypatch, tmp_path):
    (output,) = watched(monkeypatch, tmp_path)
    *bars, last = [what["text/html"] for what in output]
    parts = [float(re.search(r'value="([\d.]+)"', bar)[1]) for bar in bars]
    assert parts[: len(parts) // 2] == sorted(parts[: len(parts) // 2])
    assert max(parts) == 1
    assert "dp on digits, seed 0  epoch 1/2  loss" in bars[0]
    assert last == ""


def test_nothing_is_shown_without_progress(monkeypatch, tmp_path):
    shown = Shown()
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=shown.display))
    monkeypatch.setattr(display, "stderr", lambda: Console(force_jupyter=True, quiet=True))
    dp.train(dp.Settings(data="digits", hidden=(8,), epochs=1, alignment=False), tmp_path / "run", progress=False)
    assert shown.outputs == []
