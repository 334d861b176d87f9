"""`dualprop eval RUN` and `dualprop predict RUN FILE`: against the run's own result and the net's own outputs."""

import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import dualprop as dp
from dualprop.data import load

QUICK = ("--hidden", "24", "--epochs", "1")


def rows(out):
    return list(csv.reader(io.StringIO(out)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run on images, with every step between a file and the net: standardised, cross-entropy."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    settings = dp.Settings(
        hidden=(24,), epochs=1, lr=0.01, standardise=True, loss="cross_entropy", alignment=False
    )
    dp.train(settings, run, progress=False)
    return run


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """One on numbers."""
    run = tmp_path_factory.mktemp("runs") / "features"
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    settings = dp.Settings(hidden=(8,), epochs=1, standardise=True, alignment=False)
    dp.train(settings, run, data=(x, x[:, :2] * 2), progress=False)
    return run


def normalised(images):
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (load("digits").mean, load("digits").std))
    return (images / 255 - mean) / std


def test_eval_says_what_the_run_said(dualprop, digits):
    result = json.loads((digits / "result.json").read_text())
    code, out, err = dualprop("eval", digits)
    assert (code, err) == (0, "")
    assert f"accuracy {result['test_accuracy']:.2%}" in out
    assert f"loss {result['test_loss']:.4f};" in out
    assert "360 samples of digits, weights of epoch 1" in out


@pytest.mark.parametrize("rule", ["ep", "bp"])
def test_eval_asks_the_rule(dualprop, tmp_path, rule):
    """The prediction of ep is its free phase, not net(x)."""
    words = (*QUICK, "--rule", rule, "--run", "r", "--no-alignment", "--precision", "bf16")
    assert dualprop("train", *words)[0] == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert f"accuracy {result['test_accuracy']:.2%}, top-5" in dualprop("eval", "r")[1]


def test_predict_an_array(dualprop, digits, tmp_path):
    images = load("digits").test.images[:150]
    np.save(tmp_path / "x.npy", images.numpy())
    code, out, err = dualprop("predict", digits, "x.npy")
    assert (code, err) == (0, "")
    expected = torch.softmax(dp.load_net(digits)(normalised(images)), 1).max(1)
    assert rows(out)[0] == ["sample", "class", "probability"]
    assert [row[:2] for row in rows(out)[1:]] == [
        [str(n), str(k)] for n, k in enumerate(expected.indices.tolist(), 1)
    ]
    assert [float(row[2]) for row in rows(out)[1:]] == pytest.approx(expected.values.tolist(), abs=6e-5)
    np.save(tmp_path / "scaled.npy", images.double().numpy() / 255)
    assert dualprop("predict", digits, "scaled.npy")[1] == out


def test_predict_images(dualprop, digits, tmp_path):
    images = load("digits").test.images[:3]
    (tmp_path / "some" / "deep").mkdir(parents=True)
    for name, image in zip(("b.png", "a.png", "deep/c.png"), images, strict=True):
        Image.fromarray(image[0].numpy()).save(tmp_path / "some" / name)
    labels = dp.load_net(digits)(normalised(images)).argmax(1).tolist()
    found = rows(dualprop("predict", digits, "some")[1])
    assert [row[:2] for row in found[1:]] == [
        ["a.png", str(labels[1])], ["b.png", str(labels[0])], ["deep/c.png", str(labels[2])]
    ]  # fmt: skip
    one = Image.fromarray(images[0][0].numpy()).resize((32, 32), Image.Resampling.NEAREST).convert("RGB")
    one.save(tmp_path / "large.png")
    assert rows(dualprop("predict", digits, "large.png")[1])[1][0] == "large.png"


def test_predict_a_table_of_numbers(dualprop, features, tmp_path):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    lines = [",".join(map(repr, row)) for row in x.tolist()]
    (tmp_path / "x.csv").write_text("a,b,c,d\n" + "\n".join(lines) + "\n\n")
    (tmp_path / "bare.csv").write_text("\n".join(lines))
    code, out, _ = dualprop("predict", features, "x.csv", "--out", "y.csv")
    assert (code, out) == (0, "predictions: y.csv\n")
    again = (tmp_path / "y.csv").read_text()
    assert again == dualprop("predict", features, "bare.csv")[1]
    train = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    part, _ = dp.data.train_validation(dp.data.own_part((train, train)), 0.2, 0)
    mean, std = (
        t.float() for t in (part.batch(torch.arange(48))[0].mean(0), part.batch(torch.arange(48))[0].std(0, False))
    )
    expected = dp.load_net(features)((x - mean) / std)
    assert rows(again)[0] == ["sample", "y1", "y2"]
    got = torch.tensor([[float(cell) for cell in row[1:]] for row in rows(again)[1:]])
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-5)


def broken(folder):
    """Files that cannot be predicted."""
    np.save(folder / "small.npy", np.zeros((3, 5), dtype=np.float32))
    np.save(folder / "flat.npy", np.zeros(64, dtype=np.float32))
    np.save(folder / "large.npy", np.full((3, 64), 16.0))
    np.save(folder / "nan.npy", np.full((3, 64), np.nan))
    np.save(folder / "none.npy", np.zeros((0, 64)))
    np.save(folder / "words.npy", np.array([["a", "b"]]))
    np.save(folder / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.savez(folder / "zip.npz", np.zeros(3))
    (folder / "zip.npz").rename(folder / "zip.npy")
    (folder / "no.npy").write_bytes(b"nothing")
    (folder / "ragged.csv").write_text(",".join(["0"] * 64) + "\n0,0\n")
    (folder / "words.csv").write_text(",".join(["0"] * 64) + "\na,b\n")
    (folder / "head.csv").write_text("a,b\n")
    (folder / "empty.csv").write_text("")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    (folder / "no.png").write_bytes(b"\x89PNG nothing")
    (folder / "x.txt").write_text("1")
    (folder / "folder").mkdir()


BROKEN = {
    "small.npy": "x: shape (3, 5), but the net takes samples of shape (1, 8, 8)",
    "flat.npy": "must hold numbers of shape (samples, ...)",
    "large.npy": "numbers from 16 to 16, but the net takes pixels",
    "nan.npy": "numbers from nan to nan",
    "none.npy": "holds no sample",
    "words.npy": "must hold numbers",
    "objects.npy": "no array that can be read",
    "zip.npy": "no array that can be read",
    "no.npy": "no array that can be read",
    "ragged.csv": "line 2 holds 2 numbers, but those before it 64",
    "words.csv": "line 2 holds something else than numbers",
    "head.csv": "holds no sample",
    "empty.csv": "holds no sample",
    "bytes.csv": "no table that can be read",
    "no.png": "no image that can be read",
    "x.txt": "must be an image, a folder of images, .npy or .csv",
    "folder": "holds no sample",
    "nowhere.csv": "no such file or folder",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_predicted_is_one_line(dualprop, digits, tmp_path, name):
    broken(tmp_path)
    code, out, err = dualprop("predict", digits, name, "--out", "out.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert BROKEN[name] in err
    assert not (tmp_path / "out.csv").exists()


def test_images_for_a_net_of_numbers_and_the_other_way_round(dualprop, features, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    assert "samples of shape (4,) that are none" in dualprop("predict", features, "x.png")[2]
    np.save(tmp_path / "x.npy", np.zeros((3, 4), dtype=np.uint8))
    assert "x: pixels (uint8), but the net takes" in dualprop("predict", features, "x.npy")[2]


@pytest.mark.parametrize("command", [("eval",), ("predict",)])
def test_runs_that_have_nothing_to_say(dualprop, tmp_path, features, command):
    (tmp_path / "x.csv").write_text("1\n")
    file = ("x.csv",) if command == ("predict",) else ()
    (tmp_path / "empty").mkdir()
    assert "nowhere: not a run folder" in dualprop(*command, "nowhere", *file)[2]
    assert "empty: not a run folder" in dualprop(*command, "empty", *file)[2]
    assert dualprop("train", *QUICK, "--run", "r")[0] == 0
    (tmp_path / "r" / "best.safetensors").rename(tmp_path / "weights")
    code, out, err = dualprop(*command, "r", *file)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "r: has no weights yet" in err
    if command == ("eval",):
        assert "was trained on data of one's own, which Python alone has;" in dualprop(*command, features)[2]


def test_a_run_that_is_not_finished_is_said_to_be(dualprop, digits, tmp_path, caplog):
    from shutil import copytree

    copytree(digits, tmp_path / "r")
    (tmp_path / "r" / "result.json").unlink()
    code, out, _ = dualprop("eval", "r")
    assert (code, caplog.messages) == (0, ["r: not finished; these are its best weights so far"])
    assert re.match(r"test accuracy \d", out)


def test_eval_on_other_data(dualprop, digits, tmp_path):
    for part in ("train", "test"):
        for label in range(10):
            (tmp_path / "d" / part / str(label)).mkdir(parents=True)
    test = load("digits").test
    for number, (image, label) in enumerate(zip(test.images, test.labels.tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(tmp_path / "d" / "test" / str(label) / f"{number}.png")
        if number < 40:
            Image.fromarray(image[0].numpy()).save(tmp_path / "d" / "train" / str(label) / f"{number}.png")
    _, out, err = dualprop("eval", digits, "--data", "folder:d")
    theirs = dualprop("eval", digits)[1].split(";")[0]  # by the run's mean and deviation, not by the folder's
    assert out.split(";")[0] == theirs, err
    code, _, err = dualprop("eval", digits, "--data", "folder:nowhere")
    assert (code, err.count("\n")) == (2, 1)
