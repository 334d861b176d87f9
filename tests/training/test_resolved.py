"""What a run used is decided at its start and written down: defaults that change later change nothing in it."""

import inspect
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dualprop as dp
from dualprop.errors import CheckpointError, DualpropError, Interrupted
from dualprop.nets.zoo import mlp, vgg
from dualprop.runs.folder import Run
from dualprop.training.experiment import build
from dualprop.training.interrupt import Interrupt
from dualprop.training.resolved import Resolved


def record(path):
    return json.loads((path / "resolved.json").read_text(encoding="utf-8"))


def test_a_record_holds_every_value_that_settings_left_open(tmp_path):
    """Those of `ep-centred`, from its line in RULES and the signature of its class, and of the net."""
    dp.train(dp.Settings(rule="ep-centred", epochs=1, hidden=(8,), threads=1), tmp_path / "run")
    assert record(tmp_path / "run") == {
        "net": {
            "num_classes": 10,
            "in_shape": [1, 8, 8],
            "init": "uniform-fan-in",
            "output": "linear",
            "hidden": [8],
            "activation": "shifted-sigmoid",
            "feedback": "symmetric",
        },
        "rule": {
            "variant": "centred",
            "beta": 0.2,
            "T1": 40,
            "T2": 15,
            "order": "even-odd",
            "warm": False,
            "tolerance": 0.0,
            "same_age": False,
            "seed": 0,
        },
        "optimizer": json.loads(json.dumps(torch.optim.Adam([torch.zeros(1)], fused=True).defaults)),
        "device": "cpu" if not torch.cuda.is_available() else "cuda",
        "threads": 1,
        "data": dp.data.fingerprint(dp.data.load("digits")),
        "own": {},
        "workers": {},
    }


@pytest.mark.parametrize("rule", dp.RULES)
def test_the_record_of_every_rule_makes_the_same_net_and_rule(rule, quick):
    """Each argument is given in full, so that no default is asked again."""
    first = build(replace(quick, rule=rule))
    again = build(replace(quick, rule=rule), recorded=Resolved.from_dict(first.resolved.as_dict()))
    assert again.resolved.as_dict() == first.resolved.as_dict()
    x, y = next(iter(first.trainer.data))
    for ours, theirs in zip(*(e.trainer.rule.gradients(x, y).values() for e in (again, first)), strict=True):
        assert torch.equal(ours, theirs)


def changed_defaults(patch):
    """Another activation and init for `hep`, other values of its own, another net of the same shapes."""
    patch.setitem(dp.RULES, "hep", dp.Method(dp.HolomorphicEP, "hep", {"N": 4}, activation="tanh", init=None))
    changed = {dp.HolomorphicEP.__init__: {"beta": 0.01, "T1": 3}, mlp: {"init": "lecun-normal"}}
    for function, own in changed.items():
        inner = inspect.unwrap(function)
        patch.setattr(inner, "__kwdefaults__", {**inner.__kwdefaults__, **own})
    patch.setitem(dp.NETS, "mlp", replace(dp.NETS["mlp"], sizes=(7,), options={"output": "tanh"}))


def test_a_changed_default_leaves_finished_runs_alone(quick, tmp_path, monkeypatch):
    settings = replace(quick, rule="hep", hidden=None, epochs=1)
    dp.train(settings, tmp_path / "run")
    x = torch.randn(5, 64)
    with torch.no_grad():
        before = dp.load_net(tmp_path / "run")(x)
        changed_defaults(monkeypatch)
        assert torch.equal(dp.load_net(tmp_path / "run")(x), before)
        assert len(build(settings).trainer.net) == 2  # it would have been another net


def test_a_changed_default_leaves_stopped_runs_alone(quick, tmp_path, monkeypatch):
    settings = replace(quick, rule="hep", epochs=1)
    dp.train(settings, tmp_path / "whole")
    polls = iter(range(10_000))
    asked = property(lambda self: next(polls) >= 6, lambda self, value: None)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "asked", asked, raising=False)
        with pytest.raises(Interrupted):
            dp.train(settings, tmp_path / "stopped")
    changed_defaults(monkeypatch)
    dp.resume(tmp_path / "stopped")
    whole, stopped = (Run.open(tmp_path / name).load()["net"] for name in ("whole", "stopped"))
    assert all(torch.equal(stopped[name], value) for name, value in whole.items())


def test_a_run_from_before_there_was_a_record(quick, tmp_path, caplog):
    dp.train(quick, tmp_path / "run")
    (tmp_path / "run" / "resolved.json").unlink()
    net = dp.load_net(tmp_path / "run")
    weights = Run.open(tmp_path / "run").load_weights("best.safetensors")[0]
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    (line,) = (record.message for record in caplog.records if record.levelno >= logging.WARNING)
    assert line == (
        f"{tmp_path / 'run'}: has no resolved.json; what was left to the rule, the net or the machine is as it is "
        "today"
    )


WRONG = '{"net": 3, "rule": {}, "optimizer": {}, "device": "cpu", "threads": 1}'


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"net": 3}', WRONG])
def test_a_damaged_record_is_one_line(text, quick, tmp_path):
    dp.train(quick, tmp_path / "run")
    (tmp_path / "run" / "resolved.json").write_text(text)
    for read in (dp.load_net, dp.resume):
        with pytest.raises(CheckpointError, match=r"resolved\.json: damaged") as caught:
            read(tmp_path / "run")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("schedule", "word"),
    [
        (dp.Sweep(2), "sweep:2"),
        (dp.Parallel(), "parallel:5"),
        (dp.Parallel(7), "parallel:7"),
        (dp.Random(50, seed=3), "random:50:3"),
        (dp.Random([1, 2, 3, 2, 1]), "random:[1,2,3,2,1]:0"),
        (dp.Order([2, [1, 3]], 4), "order:[2,[1,3]]:4"),
        ("forward:16", "forward:16"),
        ("even-odd:3:0.01:0.5", "even-odd:3:0.01:0.5"),
        ("sweep", "sweep:1"),
        ("random:[1,2,3,2,1]", "random:[1,2,3,2,1]:0"),
    ],
)
def test_schedules_are_recorded_as_words(schedule, word, quick, tmp_path):
    dp.train(replace(quick, epochs=1, rule_settings={"schedule": schedule}), tmp_path / "run")
    assert record(tmp_path / "run")["rule"]["schedule"] == word
    assert Run.open(tmp_path / "run").settings.rule_settings == {"schedule": word}
    assert dp.schedules.parse(word).word == word


class Mine(dp.Schedule):
    """Up alone."""

    def updates(self, depth, generator):
        yield from dp.Sweep().updates(depth, generator)


def test_a_schedule_without_a_word_is_refused(quick, tmp_path):
    with pytest.raises(DualpropError, match="has no word, for its class is not in SCHEDULES"):
        dp.train(replace(quick, rule_settings={"schedule": Mine()}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_nets_in_the_registry_are_those_of_their_functions():
    torch.manual_seed(0)
    ours = dp.NETS["mlp"]((64,), 10, hidden=(5,))
    torch.manual_seed(0)
    theirs = mlp([64, 5, 10])
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert dp.NETS["vgg16"].options["init"] == inspect.unwrap(vgg).__kwdefaults__["init"]


# The number of threads


def test_a_resumed_run_keeps_its_number_of_threads(quick, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    polls = iter(range(10_000))
    asked = property(lambda self: next(polls) >= 6, lambda self, value: None)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "asked", asked, raising=False)
        with pytest.raises(Interrupted):
            dp.train(replace(quick, threads=3), tmp_path / "run")
    assert record(tmp_path / "run")["threads"] == 3
    dp.resume(tmp_path / "run", {"epochs": quick.epochs})
    assert used == [3, 1, 3, 1]  # and back


@pytest.mark.parametrize("threads", [0, -1, "many", True, 1.5, None])
def test_wrong_numbers_of_threads_are_named(threads, quick):
    with pytest.raises(DualpropError, match="threads="):
        replace(quick, threads=threads)


# The environment


def checkout(path, monkeypatch):
    """A checkout with the package in it as in ours: its git, and the environment as seen there."""
    from dualprop.runs import environment as module

    def git(*words):
        command = ["git", "-C", str(path), "-c", "user.name=n", "-c", "user.email=e", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    inside = path / "src" / "dualprop" / "runs" / "environment.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    (path / "pyproject.toml").write_text('[project]\nname = "dualprop"\n')
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    monkeypatch.setattr(module, "__file__", str(inside))
    monkeypatch.setattr(module, "ROOT", path)
    return git, module.environment


def test_a_commit_is_that_of_the_package_s_own_checkout(tmp_path, monkeypatch):
    git, environment = checkout(tmp_path, monkeypatch)
    commit = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another checkout
    here = environment()
    assert (here["git_commit"], here["git_dirty"]) == (commit, False)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "dualprop"\n# changed')
    assert environment()["git_dirty"] is True


@pytest.mark.parametrize("name", ["other", "vendored"])
def test_git_is_not_run_in_a_checkout_that_is_not_ours(name, tmp_path, monkeypatch):
    """It would run what that checkout's configuration names, and its commit is not the package's."""
    git, environment = checkout(tmp_path, monkeypatch)
    git("config", "core.fsmonitor", f"touch {tmp_path / 'PWNED'}; false")
    if name == "other":
        (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    else:
        from dualprop.runs import environment as module

        monkeypatch.setattr(module, "__file__", str(tmp_path / "lib" / "dualprop" / "runs" / "environment.py"))
    here = environment()
    assert (here["git_commit"], here["git_dirty"]) == (None, None)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.slow
def test_a_source_tree_without_metadata_is_no_error(tmp_path):
    code = "import importlib.metadata as m\n"
    code += "def version(name): raise m.PackageNotFoundError(name)\n"
    code += "m.version = version\n"
    code += "from dualprop.runs.environment import environment; print(environment()['versions']['dualprop'])"
    source = {"PYTHONPATH": str(Path(dp.__file__).parents[1])}
    answer = subprocess.run([sys.executable, "-c", code], env=source, capture_output=True, text=True)
    assert (answer.stdout, answer.returncode) == ("None\n", 0), answer.stderr
