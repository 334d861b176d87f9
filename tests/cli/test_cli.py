"""The command line as a person uses it: options, one-line errors, exit codes, what is on disk afterwards."""

import json
import os
import subprocess
import sys

import pytest

from dualprop import __version__

QUICK = ("--hidden", "24", "--epochs", "1")


def test_a_warning_is_one_line(dualprop):
    quick = ("--data", "digits", "--hidden", "4", "--epochs", "1", "--out", "r")
    code, _, err = dualprop("train", "--rule", "p-dp", "--schedule", "parallel:2", *quick)
    (line,) = [line for line in err.splitlines() if "warning" in line.lower()]
    assert code == 0
    assert line.startswith("dualprop: warning: schedule=Parallel(ticks=2): layer 1 of 2 cannot learn")


@pytest.mark.slow
def test_a_rule_of_one_s_own_gets_options(tmp_path):
    """In a process of its own: the options are derived when the command is first asked for."""
    code = """
import sys
from dualprop import RULES, Backprop, Method
class Mine(Backprop):
    '''Mine.

    Args:
        strength: how much of it.
    '''
    def __init__(self, net, *, loss="mse", strength=1.0):
        super().__init__(net, loss=loss)
        print("strength", repr(strength))
RULES["mine"] = Method(Mine, "mine")
from dualprop.cli import main
main()
"""
    words = (*QUICK, "--rule", "mine", "--strength", "0.5", "--run", tmp_path / "r")
    call = [sys.executable, "-c", code, "train"]
    done = subprocess.run([*call, *map(str, words)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("strength 0.5\n")
    done = subprocess.run([*call, "--rule", "mine", "--help"], capture_output=True, text=True, check=True)
    assert "How much of it." in " ".join(done.stdout.replace("│", " ").split())


def test_settings_of_a_rule_as_options(dualprop, tmp_path):
    words = ("--rule", "ep", "--T1", "5", "--beta", "0.25", "--warm", "--order", "forward", "--tolerance", "0")
    assert dualprop("train", *QUICK, *words, "--rule-settings", "T2=3", "--run", "r")[0] == 0
    own = json.loads((tmp_path / "r" / "settings.json").read_text())["rule_settings"]
    assert own == {"T1": 5, "T2": 3, "beta": 0.25, "warm": True, "order": "forward", "tolerance": 0.0}


def test_what_was_not_given_is_left_to_the_recipe(dualprop, tmp_path):
    """And what was given is not, even where it is the default."""
    (tmp_path / "mine.toml").write_text("epochs = 1\nhidden = [8]\naugment = false\nalignment = false\nlr = 0.5\n")
    assert dualprop("train", "--recipe", "mine.toml", "--lr", "0.001", "--alignment", "--run", "r")[0] == 0
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    assert {n: settings[n] for n in ("epochs", "lr", "alignment", "hidden", "data")} == {
        "epochs": 1, "lr": 0.001, "alignment": True, "hidden": [8], "data": "digits"
    }  # fmt: skip


def test_train_then_resume(dualprop, tmp_path):
    own = ("--beta", "1,0.5", "--schedule", "sweep:2")
    code, out, _ = dualprop("train", *QUICK, "--rule", "dp", *own, "--run", "r")
    assert code == 0
    assert "test accuracy" in out
    assert "run folder: r" in out
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    assert settings["rule_settings"] == {"beta": [1.0, 0.5], "schedule": "sweep:2"}
    assert settings["hidden"] == [24]
    assert dualprop("train", "--resume", "r")[:2] == (0, out)
    assert dualprop("train", "--resume", "r", *own)[0] == 0


def test_runs_get_a_folder_of_their_own(dualprop, tmp_path):
    assert dualprop("train", *QUICK)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-dp-seed0-")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("train", "--rule", "dpp"), "rule 'dpp': did you mean 'dp'"),
        (("train", "--data", "minst"), "'mnist'"),
        (("train", "--net", "mpl"), "'mlp'"),
        (("train", "--alpha", "1.5"), "alpha=1.5"),
        (("train", "--alpha", "-0.1"), "alpha=-0.1"),
        (("train", "--beta", "0"), "beta"),
        (("train", "--beta", "1,1"), "beta"),
        (("train", "--beta", "one"), "beta='one'"),
        (("train", "--beta", "2"), "beta"),
        (("train", "--alpha", "0"), "beta"),
        (("train", "--rule", "bp", "--alpha", "0.5"), "alpha: Backprop"),
        (("train", "--rule-settings", "beta"), "'beta'"),
        (("train", "--rule-settings", "lazy=7"), "lazy=7"),
        (("train", "--net-settings", "width"), "net_settings='width': must be NAME=VALUE"),
        (("train", "--net-settings", "width=8"), "net_settings: mlp has no setting 'width' of its own"),
        (("train", "--net", "vit_tiny", "--net-settings", "init=zero"), "Known: depth, width, heads, patch"),
        (
            ("train", "--net", "hopfield_mlp", "--net-settings", "top_down=skewed"),
            "unknown top-down edge 'skewed'",
        ),
        (
            ("train", "--net", "hopfield_mlp", "--net-settings", "damping=1"),
            "damping=1: must be a number in [0, 1)",
        ),
        (("train", "--schedule", "sweep:x"), "schedule='sweep:x'"),
        (("train", "--schedule", "sweap"), "'sweep'"),
        (("train", "--hidden", "10,x"), "hidden='10,x'"),
        (("train", "--hidden", "a"), "hidden='a'"),
        (("compare", "--seeds", "a"), "seeds='a'"),
        (("train", "--rule-settings", "beta"), "rule_settings='beta'"),
        (("train", "--recipe", "cifar10-vgg61"), "'cifar10-vgg16'"),
        (("train", "--recipe", "nowhere.toml"), "nowhere.toml: no such file"),
        (("compare", "--recipe", "mnist-nlp"), "'mnist-mlp'"),
        (("train", "--recipe", "mnist-mlp", "--resume", "taken"), "recipe: goes with a new run"),
        (("compare", "--recipe", "mnist-mlp", "--resume", "taken"), "recipe: the comparison has its settings"),
        (("train", "--clip-norm", "1", "--fused-update"), "fused_update: not with clip_norm=1"),
        (("train", "--label-smoothing", "0.1"), "label_smoothing=0.1: only cross_entropy"),
        (("train", "--val-fraction", "0.9999"), "val_fraction=0.9999"),
        (("train", "--epochs", "two"), "epochs='two': must be a whole number of at least 1"),
        (("train", "--epochs", "2.5"), "epochs=2.5: must be a whole number of at least 1"),
        (("train", "--lr", "true"), "lr=True: must be a finite number above 0"),
        (("train", "--colour", "red"), "--colour"),
        (("train", "--bta", "1"), "--bta. Did you mean --beta?"),
        (("train", "--rule", "ep", "--T1", "0"), "T1=0: must be a whole number of at least 1"),
        (("train", "--rule", "dp", "--T1", "5"), "T1: DualProp has no"),
        (("train", "--lazy", "yes"), "yes"),
        (("bench", "--repeats", "x"), "--repeats"),
        (("train", "digits"), "'digits': train takes no such word"),
        (("train", "--noise", "a"), "noise='a': must be a finite number of at least 0"),
        (("trian",), 'Did you mean "train"?'),
        (("train", "--lr"), "--lr"),
        (("data", "info"), "NAME"),
        (("train", "--batch-size", "0"), "batch_size=0"),
        (("train", "--epochs", "0"), "epochs=0"),
        (("train", "--device", "nowhere"), "device='nowhere'"),
        (("train", "--data", "mnist", "--data-root", "nowhere"), "nowhere"),
        (("train", "--data", "folder:nowhere"), "nowhere"),
        (("train", "--resume", "nowhere"), "nowhere: not a run folder"),
        (("train", "--run", "taken"), "taken: exists"),
        (("train", "--run", "a", "--resume", "b"), "run:"),
        (("compare", "--rules", "bp,dqp"), "'dqp'"),
        (("compare", "--rules", "bp,bp"), "rules="),
        (("compare", "--rules", ","), "rules="),
        (("compare", "--rules", ""), "rules="),
        (("compare", "--seeds", ""), "seeds="),
        (("train", "--rule-settings", "loss=mse"), "loss:"),
        (("train", "--rule-settings", "alpha=0.5", "--alpha", "0.3"), "alpha: given both"),
        (("train", "--hidden", ""), "hidden=''"),
        (("compare", "--rules", "bp,,dp"), "rules='bp,,dp'"),
        (("train", "--resume", "auto"), "resume=auto: needs --run"),
        (("train", "--init-from", "taken"), "taken: not a run folder"),
        (("train", "--init-from", "taken", "--init", "lecun-normal"), "init='lecun-normal': not with init_from"),
        (("train", "--recipe", "deep.toml"), "deep.toml: no such file"),
        (("train", "--seed", "99999999999999999999"), "seed="),
        (("train", "--hidden", "100000000,100000000"), "sizes="),
        (("train", "--device", "meta"), "device="),
        (("train", "--schedule", "sweep:99999999999999"), "n="),
        (("compare", "--seeds", "0,0"), "seeds="),
        (("compare", "--rules", "bp", "--alpha", "0.5"), "alpha: none of the rules bp"),
        (("compare", "--rules", "bp,dp", "--beta", "2"), "beta"),
        (("compare", "--out", "taken"), "taken: exists"),
        (("compare", "--resume", "taken"), "taken: not a comparison"),
        (("compare", "--resume", "taken", "--epochs", "3"), "epochs:"),
        (("data", "info", "minst"), "'mnist'"),
        (("data", "fetch", "imagenet23"), "'imagenet32'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(dualprop, tmp_path, arguments, named):
    (tmp_path / "taken").mkdir()
    code, out, err = dualprop(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("dualprop: error: ")
    assert named in err
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]
    assert list((tmp_path / "taken").iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("data",)])
def test_without_arguments_there_is_the_help_alone(dualprop, arguments):
    code, out, err = dualprop(*arguments)
    assert code == 2
    assert "Usage: dualprop" in out
    assert err == ""


@pytest.mark.parametrize("command", ["train", "compare"])
def test_ctrl_c_before_training_is_one_line(dualprop, tmp_path, monkeypatch, command):
    from dualprop import data

    def load(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "load", load)
    assert dualprop(command) == (130, "", "dualprop: stopped\n")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_the_start_and_options_override_it(dualprop, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'data = "digits"\nhidden = [8]\nlr = 0.5\nepochs = 4\nwarmup_epochs = 2\nlr_schedule = "cosine"\n'
        "[rules.kp-dp]\nlr = 0.25\nwarmup_epochs = 3\n"
    )
    options = ("--recipe", "mine.toml", "--epochs", "2", "--hidden", "5")
    assert dualprop("train", *options, "--rule", "kp-dp", "--run", "r")[0] == 0
    settings = json.loads((tmp_path / "r" / "settings.json").read_text())
    chosen = {name: settings[name] for name in ("hidden", "lr", "epochs", "warmup_epochs")}
    assert chosen == {"hidden": [5], "lr": 0.25, "epochs": 2, "warmup_epochs": 1.5}
    assert dualprop("compare", *options, "--rules", "dp,kp-dp", "--seeds", "0", "--out", "c")[0] == 0
    rates = [
        json.loads((tmp_path / "c" / f"{r}-seed0" / "settings.json").read_text())["lr"] for r in ("dp", "kp-dp")
    ]
    assert rates == [0.5, 0.25]
    (tmp_path / "c" / "kp-dp-seed0" / "result.json").unlink()
    (tmp_path / "mine.toml").unlink()
    assert dualprop("compare", "--resume", "c")[0] == 0


def test_resuming_with_a_contradiction(dualprop):
    dualprop("train", *QUICK, "--run", "r")
    code, _, err = dualprop("train", "--resume", "r", "--lr", "0.5")
    assert (code, err.count("\n")) == (2, 1)
    assert "lr=0.5: contradicts" in err


def test_compare_ends_with_a_table_and_pictures(dualprop, tmp_path):
    options = ("--rules", "bp,dp,kp-dp", "--seeds", "3,4", "--beta", "0.5", "--hidden", "24", "--epochs", "2")
    code, out, _ = dualprop("compare", *options, "--out", "c")
    assert code == 0
    folder = tmp_path / "c"
    for name in ("table.md", "table.csv", "learning-curves.png", "alignment.png"):
        assert (folder / name).stat().st_size > 100
        assert f"c/{name}" in out
    rows = (folder / "table.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["rule", "bp", "dp", "kp-dp"]
    bp, dp = (row.split(",") for row in rows[1:3])
    assert bp[1:2] == ["2"]
    assert bp[4:] == ["1.00", "1.000", ""]
    assert 0.9 < float(dp[5]) < 1
    accuracies = [
        json.loads((folder / f"bp-seed{s}" / "result.json").read_text())["test_accuracy"] for s in (3, 4)
    ]
    mean, difference = 50 * sum(accuracies), 100 * abs(accuracies[0] - accuracies[1])
    assert bp[2] == f"{mean:.2f} ± {difference / 2**0.5:.2f}"
    assert json.loads((folder / "dp-seed3" / "settings.json").read_text())["rule_settings"] == {"beta": 0.5}
    assert json.loads((folder / "bp-seed3" / "settings.json").read_text())["rule_settings"] == {}


def test_a_comparison_goes_on_where_it_stopped(dualprop, tmp_path, monkeypatch):
    from dualprop.errors import Interrupted
    from dualprop.studies import comparison

    original, trained = comparison.train, []

    def train(settings, path, **others):
        if len(trained) == 2:
            raise Interrupted("stopped after step 1")
        trained.append(path.name)
        return original(settings, path, **others)

    monkeypatch.setattr(comparison, "train", train)
    code, _, err = dualprop("compare", "--rules", "bp,dp", "--seeds", "0,1", *QUICK, "--out", "c")
    assert code == 130
    assert "dualprop compare --resume c" in err

    def others(settings, path, **own):
        if not path.exists():
            trained.append(path.name)
        return original(settings, path, **own)

    monkeypatch.setattr(comparison, "train", others)
    assert dualprop("compare", "--resume", "c")[0] == 0
    assert trained == ["bp-seed0", "bp-seed1", "dp-seed0", "dp-seed1"]
    assert (tmp_path / "c" / "table.md").exists()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], [], ["data", "--help"]], ids=str)
def test_help_and_version_load_no_torch(words):
    code = """
import atexit, sys
atexit.register(lambda: print({"torch", "numpy", "torchvision", "matplotlib"} & set(sys.modules), "are loaded"))
from dualprop.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.stdout.endswith("set() are loaded\n"), done.stdout
    assert done.returncode == (0 if words and words[-1].startswith("-") else 2)


def test_the_version_is_the_package_s(dualprop):
    assert dualprop("--version") == (0, f"{__version__}\n", "")


def test_one_command_starts_and_goes_on(dualprop):
    words = ("train", *QUICK, "--run", "r", "--resume", "auto")
    first, again = dualprop(*words), dualprop(*words)
    assert first[0] == again[0] == 0
    assert first[1] == again[1]
    assert dualprop(*words, "--lr", "0.5")[2].startswith("dualprop: error: lr=0.5: contradicts the run")
    assert dualprop("train", "--resume", "r", "--epochs", "2")[0] == 0
    assert dualprop("train", *QUICK, "--init-from", "r", "--run", "s")[0] == 0


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "\u202eabc", os.fsdecode(b"\xff\xfe")])
def test_what_a_folder_is_called_is_shown_and_never_interpreted(dualprop, name):
    """Also one whose name is no Unicode is trained, gone on with and compared."""
    for words in (
        ("train", *QUICK, "--run", f"r{name}"),
        ("train", "--resume", f"r{name}", "--epochs", "2"),
        ("compare", "--rules", "bp", "--seeds", "0", *QUICK, "--out", f"c{name}"),
    ):
        code, out, err = dualprop(*words)
        assert code == 0, err
        assert all(c.isprintable() or c == "\n" for c in out + err)
        assert repr(name)[1:-1] in out


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory_is_one_line(dualprop, monkeypatch, error):
    def train(*_, **__):
        raise error

    monkeypatch.setattr("dualprop.training.start.train", train)
    code, _, err = dualprop("train", *QUICK)
    assert code == 2
    assert err.startswith("dualprop: error: out of memory (")
    monkeypatch.setattr("dualprop.training.start.train", lambda *_, **__: [][0])
    with pytest.raises(IndexError):
        dualprop("train", *QUICK)
