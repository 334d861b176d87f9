"""Sources of frames, and what a line says."""

from __future__ import annotations

import dataclasses
import io
import itertools

import pytest
import torch
from PIL import Image

import dualprop as dp
from dualprop.runs.streams import StreamSettings
from dualprop.training.stream.follower import Stream
from dualprop.training.stream.sources import Named, made
from dualprop.training.stream.sources.lines import Lines, Sample, Unread
from dualprop.training.stream.sources.names import Features
from dualprop.training.stream.sources.views import SHIFT


def items(settings, start=0, count=50, text=""):
    source = made(settings, io.StringIO(text))
    return [item for item in itertools.islice(source.items(start), count) if item is not None]


@pytest.mark.parametrize(
    "settings",
    [
        StreamSettings("digits", hold=3),
        StreamSettings("digits", hold=4, drift=True, seed=2),
        StreamSettings("permuted-inputs", period=10),
        StreamSettings("permuted-labels", period=10),
        StreamSettings("gradual", period=10),
    ],
    ids=lambda s: s.source + (" drift" if s.drift else ""),
)
def test_a_source_goes_on_at_any_item(settings):
    whole, late = items(settings), items(settings, start=17)
    for one, other in zip(whole[17:], late, strict=False):
        assert torch.equal(one.x, other.x)
        assert (one.y, one.first) == (other.y, other.first)
    others = items(StreamSettings(**{**settings.as_dict(), "seed": settings.seed + 1}))
    assert not all(torch.equal(one.x, other.x) for one, other in zip(whole, others, strict=True))


def test_images_are_held_and_judged_at_their_first_view():
    whole = items(StreamSettings("digits", hold=3))
    assert [item.first for item in whole[:7]] == [True, False, False, True, False, False, True]
    assert torch.equal(whole[0].x, whole[2].x)
    assert not torch.equal(whole[2].x, whole[3].x)
    data = dp.data.load("digits").train
    x, y = data.batch(torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:2])
    assert torch.equal(whole[3].x, x[1].float() / 255)
    assert whole[3].y == int(y[1])


def test_drifting_images_move_a_little_at_a_time():
    views = [item.x for item in items(StreamSettings("digits", hold=40, drift=True), count=40)]
    assert torch.allclose(views[0], items(StreamSettings("digits"), count=1)[0].x, atol=1e-5)
    steps = [float((a - b).norm() / a.norm()) for a, b in itertools.pairwise(views)]
    assert max(steps) < float((views[0] - views[-1]).norm() / views[0].norm()) + 1
    assert sum(step > 0 for step in steps) > 20
    assert all(view.sum() > 0.2 * views[0].sum() for view in views), f"{SHIFT} pixels do not lead out of it"


def test_synthetic_sources_change_when_they_say():
    def centre(settings, start, label):
        drawn = items(settings, start, 200)
        return torch.stack([item.x for item in drawn if item.y == label]).mean(0)

    inputs = StreamSettings("permuted-inputs", period=1000)
    assert torch.allclose(centre(inputs, 0, 1).sort().values, centre(inputs, 1000, 1).sort().values, atol=1.2)
    assert float((centre(inputs, 0, 1) - centre(inputs, 1000, 1)).norm()) > 3
    assert float((centre(inputs, 0, 1) - centre(inputs, 500, 1)).norm()) < 2
    slow = StreamSettings("gradual", period=10_000)
    moved = [float((centre(slow, 0, 0) - centre(slow, at, 0)).norm()) for at in (100, 5000, 10_000, 20_000)]
    assert moved[0] < moved[1] < moved[2]
    assert moved[3] < moved[1]
    labels = StreamSettings("permuted-labels", period=1000)
    assert len({tuple(centre(labels, at, 0).round(decimals=-1).tolist()) for at in (0, 1000, 2000, 3000)}) > 1


def test_a_folder_of_images_is_in_the_order_of_names(tmp_path):
    for name, grey in {"b/2.png": 20, "a/1.png": 10, "a/3.png": 30, "b/4.png": 40}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (5, 4), grey).save(tmp_path / name)
    source = made(StreamSettings(f"folder:{tmp_path}"), io.StringIO())
    assert (source.in_shape, source.classes, source.length) == ((1, 4, 5), 2, 4)
    found = [(round(255 * float(item.x[0, 0, 0])), item.y) for item in source.items(0)]
    assert found == [(10, 0), (30, 0), (20, 1), (40, 1)]
    Image.new("L", (5, 4), 50).save(tmp_path / "0.png")
    assert next(iter(made(StreamSettings(f"folder:{tmp_path}"), io.StringIO()).items(0))).y is None


def test_an_image_that_is_gone_when_its_turn_comes_is_left_out_for_its_time(tmp_path):
    for number in range(4):
        Image.new("L", (5, 4), number).save(tmp_path / f"{number}.png")
    settings = StreamSettings(f"folder:{tmp_path}", hold=3)
    source = made(settings, io.StringIO())
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_text("no image")
    whole = list(source.items(0))
    assert [(item.x is None, bool(item.unread), item.first) for item in whole] == [
        *[(False, False, True), (False, False, False), (False, False, False)],
        *2 * [(True, True, False), (True, False, False), (True, False, False)],
        *[(False, False, True), (False, False, False), (False, False, False)],
    ]
    assert [item.x is None for item in source.items(4)] == [item.x is None for item in whole[4:]]
    stream, unread = Stream(dataclasses.replace(settings, hidden=(4,)), source), 0
    for item in whole:
        try:
            stream.take(item)
        except dp.DualpropError:
            unread += 1
    assert (stream.learner.ticks, unread) == (10, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source": "nothing"}, "source='nothing': must be one of"),
        ({"source": "folder:missing"}, ".*missing: no such folder"),
        ({"source": "folder:."}, ".*has no image"),
        ({"source": "folder:"}, "source='folder:': names no folder"),
        ({"source": "river:Nothing"}, "unknown data set of River's"),
        ({"source": "river:base"}, "unknown data set of River's"),
        ({"source": "river:TrumpApproval"}, "source=river:TrumpApproval: is for regression"),
        ({"source": "river:Yeast"}, "source=river:Yeast: is for multi-output binary classification"),
    ],
)
def test_unknown_sources(settings, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if settings["source"].startswith("river"):
        pytest.importorskip("river")
    with pytest.raises(dp.DualpropError, match=f"^{words}"):
        made(StreamSettings(**settings), io.StringIO())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a": 1, "y": "cat"}', Sample(2, {"a": 1}, "cat")),
        ('{"a": [1, 2.5]}', Sample(2, {"a.0": 1, "a.1": 2.5})),
        ('{"frame": 7, "y": 1}', Sample(2, None, 1, 7)),
        ('{"frame": 7, "a": 1}', Sample(2, {"a": 1}, None, 7)),
        ("cat", Unread(2, "no JSON (Expecting value)")),
        ("[1, 2]", Unread(2, "no JSON object")),
        ('{"a": 1', Unread(2, "no JSON (Expecting ',' delimiter)")),
        ('{"y": [1]}', Unread(2, "y=[1]: must be a word or a finite number")),
        ('{"a": 1, "y": NaN}', Unread(2, "y=nan: must be a word or a finite number")),
        ('{"a": 1, "y": -Infinity}', Unread(2, "y=-inf: must be a word or a finite number")),
        ('{"frame": 7, "y": 1, "a": null}', Sample(2, None, 1, 7)),
        ('{"frame": [7], "y": 1}', Unread(2, "frame=[7]: must be a whole number or a word")),
        ('{"frame": 1.5, "y": 1}', Unread(2, "frame=1.5: must be a whole number or a word")),
        ("", None),
    ],
)
def test_lines_of_json(line, expected):
    lines = Lines("y")
    lines.read('{"a": 0}')
    assert lines.read(line) == expected


def test_lines_that_go_too_deep_or_hold_too_much_are_one_line():
    lines = Lines("y")
    lines.read("{}")
    for line in ("[" * 100_000, '{"a": ' + "9" * 10_000 + "}", '{"a": "\ud800"}'):
        read = lines.read(line)
        assert isinstance(read, Unread | Sample)
        assert "\n" not in str(read)


def test_lines_of_csv():
    lines = Lines("kind")
    read = [lines.read(line) for line in ("a, b,kind", '1,"x, y",k', "2,,", "3,4", '"a', "1,2,nan")]
    assert read[:3] == [None, Sample(2, {"a": 1.0, "b": "x, y"}, "k"), Sample(3, {"a": 2.0, "b": None}, None)]
    assert read[3] == Unread(4, "2 values, but the header has 3 names")
    assert isinstance(read[4], Unread)
    assert read[5] == Unread(6, "kind=nan: must be a word or a finite number")


def test_lines_of_csv_may_name_frames_and_bring_labels_that_come_late():
    lines = Lines("y")
    read = [lines.read(line) for line in ("frame,a,y", "3,0.5,", "3,,p", "x,0.5,q", "2.5,1,p")]
    assert read == [
        None,
        Sample(2, {"a": 0.5}, None, 3),
        Sample(3, None, "p", 3),
        Sample(4, {"a": 0.5}, "q", "x"),
        Unread(5, "frame=2.5: must be a whole number or a word"),
    ]


@pytest.mark.parametrize("first", ['{"a": 1, "y": "cat"}', "a,y"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(first: str):
    lines = Lines("y")
    read = [lines.read(line) for line in ("\ufeff" + first, '{"a": 1, "y": "cat"}' if "{" in first else "1,cat")]
    assert read[1].features == {"a": 1}
    assert read[0] is None or read[0].features == {"a": 1}


def test_a_name_that_two_columns_have_is_told():
    lines = Lines("y")
    assert lines.read("a,b,a,y") == Unread(1, "columns of one name, a: the last of them counts")
    assert lines.read("1,2,3,cat").features == {"a": 3, "b": 2}


def test_a_header_without_the_target_is_told_and_what_follows_is_read():
    lines = Lines("kind")
    assert lines.read("a,b") == Unread(1, "no column 'kind', so that no line has a label")
    assert lines.read("1,2") == Sample(2, {"a": 1.0, "b": 2.0})


def test_lines_as_samples_with_names_that_come_later():
    text = '{"a": 1, "y": "p"}\nno\n{"b": "red", "y": "q"}\n{"a": NaN}\n{"frame": 0, "y": "q"}\n{"a": 3}\n'
    source = made(StreamSettings("-", standardise=False), io.StringIO(text))
    assert isinstance(source, Named)
    source.wait(lambda: False)
    assert source.in_shape == (1,)
    found = [item for item in source.items(0) if item is not None]
    assert [None if i.x is None else i.x.tolist() for i in found] == [
        [1.0],
        None,
        [0.0, 1.0],
        None,
        None,
        [3.0, 0.0],
    ]
    assert [(i.y, i.frame, bool(i.unread)) for i in found] == [
        (0, None, False),
        (None, None, True),
        (1, None, False),
        (None, None, True),
        (1, 0, False),
        (None, None, False),
    ]


def test_numbers_are_scaled_by_all_that_have_been():
    features, seen = Features(), []
    for value in (3.0, 5.0, -1.0, 4.0):
        seen.append(value)
        row = features.of({"a": value, "b": True})
        mean, deviation = torch.tensor(seen).mean(), torch.tensor(seen).std(correction=0)
        expected = (value - mean) / deviation if deviation > 0 else torch.tensor(0.0)
        assert torch.allclose(row, torch.stack([expected, torch.tensor(0.0)]), atol=1e-6)
    before = features.state_dict()
    assert features.of({"a": 3.5, "new": 1.0}, learn=False).shape == (2,)
    assert features.state_dict() == before
    for bad in ({"c": 1.0, "a": float("nan")}, {"c": [1]}, {"c": 10**400}, {"c": {"d": ["e"] * 999}}):
        with pytest.raises(dp.DualpropError) as error:
            features.of(bad)
        assert len(str(error.value)) < 120
        assert features.state_dict() == before
    other = Features()
    other.load_state_dict(before)
    assert torch.equal(other.of({"a": 7.0}), features.of({"a": 7.0}))


def test_a_data_set_that_cannot_be_fetched_is_one_line(monkeypatch):
    datasets = pytest.importorskip("river.datasets")

    def broken(self):
        yield {"a": 1.0}, 0
        raise OSError("no route to host")

    monkeypatch.setattr(datasets.Phishing, "__iter__", broken)
    source = made(StreamSettings("river:Phishing"), io.StringIO()).items(0)
    assert next(source).y == 0
    with pytest.raises(dp.DualpropError, match=r"^source=river:Phishing: cannot be had \(no route to host\)$"):
        next(source)
