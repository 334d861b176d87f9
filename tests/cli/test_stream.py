"""`dualprop stream`: a run folder like every other, taken up again to the bit."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dualprop.runs.checkpoint import loaded
from dualprop.runs.streams import StreamRun, StreamSettings
from dualprop.training.stream.follow import begin, resume
from tests.training.stream.test_learner import same

SMALL = ("--hidden", "8,6", "--log-every", "20")


def state(run):
    return loaded(Path(run) / "checkpoint.safetensors")["stream"]


def test_a_stream_makes_a_run_folder(dualprop):
    code, out, err = dualprop("stream", "digits", "--run", "r", "--frames", "100", *SMALL)
    assert code == 0, err
    assert out.startswith("100 ticks, accuracy ")
    assert out.endswith("run folder: r\n")
    names = {path.name for path in Path("r").iterdir() if not path.name.startswith("events")}
    expected = {"settings.json", "resolved.json", "environment.json", "metrics.jsonl", "result.json", "curve.png"}
    assert expected | {"checkpoint.safetensors"} <= names
    records = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [20, 40, 60, 80, 100]
    assert records[-1]["judged"] == 98
    assert json.loads(Path("r/result.json").read_text())["accuracy"] == records[-1]["accuracy"]
    assert Path("r/curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "source", ["digits --hold 3 --drift true", "gradual --late 4", "digits --pairing present"]
)
def test_a_stream_that_is_taken_up_is_the_one_that_never_stopped(source, dualprop):
    words = [word for word in source.split() if word != "true"]
    assert dualprop("stream", *words, "--run", "whole", "--frames", "90", *SMALL)[0] == 0
    assert dualprop("stream", *words, "--run", "parts", "--frames", "37", *SMALL)[0] == 0
    code, _, err = dualprop("stream", "--resume", "parts", "--frames", "90")
    assert code == 0, err
    same(state("whole"), state("parts"))
    assert dualprop("stream", "--resume", "parts", "--frames", "90", "--lr", "1")[2].startswith(
        "dualprop: error: lr=1.0: contradicts the run"
    )


def test_a_stream_of_names_is_taken_up(dualprop):
    pytest.importorskip("river")
    for run, frames in (("whole", 60), ("parts", 25)):
        assert dualprop("stream", "river:Phishing", "--run", run, "--frames", frames, *SMALL)[0] == 0
    assert dualprop("stream", "--resume", "parts", "--frames", "60")[0] == 0
    same(state("whole"), state("parts"))


def pictures(folder, **greys):
    for name, grey in greys.items():
        Image.new("L", (5, 4), grey).save(folder / f"{name}.png")


def test_what_a_stream_has_had_of_a_folder_must_be_there_still_and_more_may_come(dualprop, tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    pictures(folder, b=10, c=200, d=30)
    words = (f"folder:{folder}", "--hold", "2", *SMALL)
    assert dualprop("stream", *words, "--run", "r", "--frames", "3")[0] == 0  # in the midst of the second
    pictures(folder, e=40)
    (folder / "d.png").rename(folder / "d2.png")
    assert dualprop("stream", "--resume", "r", "--frames", "4")[0] == 0
    assert state("r")["counts"]["items"] == 4
    before = state("r")
    for change in (lambda: pictures(folder, a=1), lambda: (folder / "b.png").unlink()):
        change()
        code, _, err = dualprop("stream", "--resume", "r", "--frames", "9")
        assert code == 2
        assert "what the stream has had of it (4 ticks) is not what it was" in err
        same(state("r"), before)
        (folder / "a.png").unlink(missing_ok=True)


LINES = '{"a": 1, "y": "p"}\nno\n{"a": 2, "b": "red", "y": "q"}\n{"a": NaN}\n{"frame": 1, "y": "p"}\n{"a": 3}\n'


def test_lines_on_standard_input(dualprop, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINES))
    code, out, _ = dualprop("stream", "-", "--run", "r", *SMALL)
    assert code == 0
    assert out.startswith("3 ticks, accuracy")
    assert "2 unread" in out
    assert caplog.messages[:2] == [
        "line 2: no JSON (Expecting value); left out",
        "line 4: a=nan: NaN or infinite; left out",
    ]
    kept = state("r")
    assert kept["source"]["labels"] == ["p", "q"]
    assert kept["source"]["features"]["names"] == ["a", "b=red"]
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"c": 1, "y": "third"}\n'))
    assert dualprop("stream", "--resume", "r")[0] == 0
    assert state("r")["learner"]["ticks"] == 4
    assert state("r")["source"]["labels"] == ["p", "q", "third"]


def test_frames_may_be_called_something_by_which_a_label_finds_them(dualprop, monkeypatch, caplog):
    lines = [
        '{"frame": "a", "x": 1}',
        "no",
        '{"frame": "b", "x": 2}',
        '{"frame": 30, "x": 3}',
        '{"frame": "b", "y": 1}',
        '{"frame": 0, "y": 1}',
        '{"frame": "c", "x": 1}',
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert dualprop("stream", "-", "--run", "r", "--late", "3", "--frames", "3", *SMALL)[0] == 0
    assert state("r")["learner"]["labels"]["frames"] == []
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines[4:])))
    assert dualprop("stream", "--resume", "r", "--frames", "9")[0] == 0
    assert state("r")["learner"]["labels"]["frames"] == [1]
    assert "line 2: frame=0: none of the last 3 is called so; left out" in caplog.messages


def test_a_net_of_another_kind_follows_images(dualprop):
    words = ("mnist-like", "--net", "vgg_like")
    code, _, err = dualprop("stream", "digits", "--run", "r", "--frames", "3", "--net", "vgg16")
    assert code == 2
    assert err.startswith("dualprop: error: ")
    assert not Path("r").exists(), words
    assert dualprop("stream", "digits", "--run", "r", "--frames", "12", "--net", "resnet8")[0] == 0
    assert state("r")["learner"]["ticks"] == 12


def test_standard_input_that_is_closed_or_no_text(dualprop, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert dualprop("stream", "-", "--run", "r")[2] == "dualprop: error: source=-: standard input is closed\n"
    text = io.TextIOWrapper(io.BytesIO(b'{"a": 1, "y": 0}\n\xff\xfe\n{"a": 2, "y": 1}\n'), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", text)
    code, out, _ = dualprop("stream", "-", "--run", "r", *SMALL)
    assert code == 0
    assert out.startswith("2 ticks")
    assert "1 unread" in out


def test_lines_that_find_no_place_are_dropped_and_counted(dualprop, monkeypatch):
    lines = "".join(f'{{"a": {number}, "y": {number % 2}}}\n' for number in range(4000))
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    code, out, _ = dualprop("stream", "-", "--run", "r", "--drop", "--places", "5", *SMALL)
    assert code == 0
    ticks, dropped = (int(out.split(word)[0].split()[-1].replace(",", "")) for word in (" ticks", " dropped"))
    assert ticks + dropped == 4000
    assert json.loads(Path("r/result.json").read_text())["dropped"] == dropped == state("r")["counts"]["dropped"]


def test_strict_stops_at_the_first_bad_line_and_keeps_what_was_learnt(dualprop, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(LINES))
    code, _, err = dualprop("stream", "-", "--run", "r", "--strict", *SMALL)
    assert code == 2
    assert "error: line 2: no JSON (Expecting value) (strict; what was learnt is in r)" in err
    assert state("r")["learner"]["ticks"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nothing",), "source='nothing': must be one of"),
        (("digits", "--step", "adam"), "unknown step 'adam'"),
        (("digits", "--beta", "-1"), "beta=-1"),
        (("digits", "--late", "2", "--pairing", "present"), "late=2: goes with pairing=delayed"),
        (("gradual", "--drift"), "drift: is for images"),
        (("-", "--hold", "2"), "hold=2: is for images"),
        (("--resume", "missing"), "missing: not a run folder"),
        (("-",), "source=-: ends before there is a sample"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_no_folder(words, told, dualprop, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    code, _, err = dualprop("stream", *words, *(() if words[0] == "--resume" else ("--run", "r")))
    assert code == 2
    assert told in err.splitlines()[-1]
    assert not Path("r").exists()


def test_other_commands_refuse_the_folder_of_a_stream_in_one_line(dualprop):
    assert dualprop("stream", "digits", "--run", "r", "--frames", "5", *SMALL)[0] == 0
    code, _, err = dualprop("train", "--resume", "r")
    assert code == 2
    assert err == "dualprop: error: r: of another command; go on with: dualprop stream --resume r\n"
    Path("r/settings.json").write_text('{"rule": "dp"}')
    assert "dualprop train --resume r" in dualprop("stream", "--resume", "r")[2]


def test_a_slow_learner_drops_frames(tmp_path, monkeypatch):
    clock = iter(x * 0.01 for x in range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    stream = begin(StreamSettings("digits", fps=60.0, frames=20, hidden=(4,)), tmp_path / "r")
    assert stream.counts.dropped > 0
    assert stream.counts.items == stream.counts.dropped + 20


def test_what_was_learnt_is_kept_where_a_source_breaks(dualprop, monkeypatch):
    class Broken(io.StringIO):
        def readline(self, size=-1):
            if self.tell() > 40:
                raise OSError("the disk is gone")
            return super().readline(size)

    monkeypatch.setattr(sys, "stdin", Broken('{"a": 1, "y": 0}\n{"a": 2, "y": 1}\n{"a": 3, "y": 1}\n'))
    code, _, err = dualprop("stream", "-", "--run", "r", *SMALL)
    assert code == 2
    assert err.splitlines()[-1] == "dualprop: error: source=-: cannot be read on (the disk is gone)"
    assert state("r")["learner"]["ticks"] == 3


def test_weights_that_run_away_end_the_stream_and_leave_the_last_checkpoint(dualprop):
    code, _, err = dualprop("stream", "digits", "--run", "r", "--step", "sgd", "--lr", "1e30", *SMALL)
    assert code == 2
    assert "weights have run away" in err.splitlines()[-1]
    assert Path("r/checkpoint.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stream_that_is_stopped_at_any_time_goes_on_to_the_bit(number, tmp_path):
    words = ["gradual", "--hidden", "8,6", "--log-every", "50", "--checkpoint-every", "0.05"]
    command = [sys.executable, "-m", "dualprop", "stream", *words, "--run", str(tmp_path / "r")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "r/metrics.jsonl").exists():
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, err = process.communicate()
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert "go on with: dualprop stream --resume" in err
    reached = state(tmp_path / "r")["learner"]["ticks"]
    resume(tmp_path / "r", {"frames": reached + 60})
    whole = begin(StreamSettings("gradual", hidden=(8, 6), log_every=50, frames=reached + 60), tmp_path / "whole")
    assert whole.learner.ticks == reached + 60
    same(state(tmp_path / "r"), state(tmp_path / "whole"))
    steps = [record["step"] for record in StreamRun.open(tmp_path / "r").metrics()]
    assert steps == sorted(set(steps))
