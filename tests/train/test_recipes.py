"""Recipes: what the shipped ones say, how they are overridden, and what is refused."""

from importlib import resources
from pathlib import Path, PurePath

import pytest

from dualprop import RULES, recipes
from dualprop.comparison import plan
from dualprop.errors import DualpropError
from dualprop.experiment import build_net
from dualprop.optim import LR_SCHEDULES
from dualprop.recipes import tomllib
from dualprop.settings import Settings


@pytest.fixture
def mine(tmp_path):
    """Write a recipe of one's own; its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_the_recipes_ship_with_the_package():
    assert list(recipes.shipped()) == ["cifar10-vgg16", "cifar100-vgg16", "mnist-mlp"]
    for name in recipes.shipped():
        assert tomllib.loads((resources.files("dualprop.recipes") / f"{name}.toml").read_text())["data"]


def test_package_data_names_them():
    """What setuptools puts into a wheel: the patterns in pyproject.toml match every recipe."""
    root = Path(recipes.__file__).parents[1]
    patterns = tomllib.loads((root.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for file in (root / "recipes").glob("*.toml"):
        assert any(PurePath(file.relative_to(root)).match(pattern) for pattern in patterns["dualprop"])


@pytest.mark.parametrize(
    ("rule", "warmup_epochs", "warmup_lr"), [("bp", 10, 5e-3), ("dp", 10, 5e-3), ("kp-dp", 15, 1e-4)]
)
def test_cifar10_is_the_paper_s_schedule(rule, warmup_epochs, warmup_lr):
    s = recipes.load("cifar10-vgg16", rule=rule)
    assert (s.rule, s.net, s.data, s.loss) == (rule, "vgg16", "cifar10", "cross_entropy")
    assert (s.optimizer, s.momentum, s.weight_decay, s.batch_size) == ("sgd", 0.9, 5e-4, 100)
    assert (s.warmup_epochs, s.warmup_lr, s.lr, s.epochs) == (warmup_epochs, warmup_lr, 0.025, 130)
    assert (s.augment, s.standardise, s.precision, s.channels_last) == (True, True, "bf16", True)
    at = LR_SCHEDULES[s.lr_schedule]
    assert [at(s, e) for e in (0, warmup_epochs, 130)] == pytest.approx([warmup_lr, 0.025, 0.0])


def test_the_other_published_numbers():
    s = recipes.load("cifar100-vgg16", rule="kp-dp")
    assert (s.epochs, s.batch_size, s.lr, s.warmup_epochs) == (200, 50, 0.015, 30)
    s = recipes.load("mnist-mlp")
    assert (s.hidden, s.optimizer, s.lr, s.epochs) == ((1000,) * 4, "adam", 3e-5, 100)
    assert (s.loss, s.batch_size, s.val_fraction) == ("mse", 100, 0.1)


@pytest.mark.parametrize("name", recipes.shipped())
@pytest.mark.parametrize("rule", RULES)
def test_every_recipe_suits_every_rule(name, rule):
    """Names that exist; a rule that can be bound to a net of that kind, here a small one."""
    s = recipes.load(name, rule=rule, net="mlp", hidden=(4,))
    net = build_net(s, (3, 2, 2), 3)
    RULES[rule](net, loss=s.loss, **s.rule_settings)


def test_a_warm_up_scales_with_the_epochs_unless_it_is_given():
    assert recipes.load("cifar10-vgg16", epochs=4).warmup_epochs == pytest.approx(10 * 4 / 130)
    assert recipes.load("cifar10-vgg16", epochs=4, rule="kp-dp").warmup_epochs == pytest.approx(15 * 4 / 130)
    assert recipes.load("cifar10-vgg16", epochs=4, warmup_epochs=1.0).warmup_epochs == 1.0
    assert recipes.load("cifar10-vgg16", epochs=130).warmup_epochs == 10


def test_a_rule_s_own_table_overrides_and_is_overridden(mine):
    path = mine("lr = 0.5\nepochs = 4\nwarmup_epochs = 2\n[rules.ms-dp]\nlr = 0.25\nepochs = 8\nwarmup_epochs = 1")
    assert recipes.load(path).lr == 0.5
    s = recipes.load(path, rule="ms-dp")
    assert (s.lr, s.epochs, s.warmup_epochs) == (0.25, 8, 1)
    s = recipes.load(path, rule="ms-dp", lr=0.125, epochs=16)
    assert (s.lr, s.epochs, s.warmup_epochs) == (0.125, 16, 2.0)


def test_a_recipe_may_choose_the_rule_and_its_settings(mine):
    path = mine('rule = "dp"\n[rule_settings]\nalpha = 0.25\nbeta = 0.5\n[rules.dp]\nlr = 0.5')
    s = recipes.load(path, rule_settings={"beta": 0.125})
    assert (s.rule, s.lr, s.rule_settings) == ("dp", 0.5, {"alpha": 0.25, "beta": 0.125})


def test_a_plan_gives_each_rule_its_own_table():
    settings = plan(["dp", "kp-dp"], [0, 1], {"epochs": 26}, recipes.read("cifar10-vgg16"))
    assert [(s.rule, s.seed, s.warmup_epochs) for s in settings] == [
        ("dp", 0, 2.0),
        ("dp", 1, 2.0),
        ("kp-dp", 0, 3.0),
        ("kp-dp", 1, 3.0),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lr = ", "mine.toml"),
        ("learning = 1", "learning: no such setting"),
        ("lr = -1", "lr=-1"),
        ('lr = "fast"', "lr='fast': must be a number"),
        ("rules = 3", "rules: must hold"),
        ("rules.dp = 3", "rules: must hold"),
        ("[rules.dpp]", "'dp'"),
        ("[rules.dp]\nlr = -1", "lr=-1"),
        ("[rules.dp]\nlearning = 1", "learning"),
        ("hidden = [1.5]", "hidden="),
        ("epochs = 4\nwarmup_epochs = 5", "warmup_epochs=5"),
    ],
)
def test_what_is_no_recipe_is_one_line(mine, text, named):
    path = mine(text)
    with pytest.raises(DualpropError) as caught:
        recipes.read(path)
    assert str(path) in str(caught.value)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_recipes(tmp_path):
    with pytest.raises(DualpropError, match="unknown recipe 'cifar10-vgg61': did you mean 'cifar10-vgg16'"):
        recipes.load("cifar10-vgg61")
    with pytest.raises(DualpropError, match=r"nowhere\.toml: no such file"):
        recipes.load(tmp_path / "nowhere.toml")
    with pytest.raises(DualpropError, match="learning: no such setting"):
        recipes.load("mnist-mlp", learning=1)


def test_settings_hold_all_that_a_recipe_decides():
    """The record of a run needs no recipe: its settings say everything."""
    s = recipes.load("cifar10-vgg16", rule="kp-dp", epochs=4)
    assert Settings.from_dict(s.as_dict()) == s


def test_a_rule_s_table_may_not_name_another_rule(tmp_path):
    (tmp_path / "mine.toml").write_text('[rules.dp]\nrule = "bp"\n')
    with pytest.raises(DualpropError, match=r"mine\.toml: not a recipe \(rules\.dp: may not name another rule\)"):
        recipes.read(tmp_path / "mine.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DualpropError, match=r"none\.toml: no such file$"):
        recipes.read(tmp_path / "none.toml")
