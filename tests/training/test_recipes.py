"""Recipes: what the shipped ones say, how they are overridden, and what is refused."""

import math
from importlib import resources
from pathlib import Path, PurePath

import pytest
import torch
from torch.nn import functional as F

import dualprop as dp
from dualprop import RULES, data, recipes
from dualprop.data import Dataset, Split
from dualprop.errors import DualpropError
from dualprop.files import tomllib
from dualprop.runs.settings import Settings
from dualprop.studies.comparison import plan
from dualprop.training.experiment import build
from dualprop.training.optim.optimizers import LR_SCHEDULES
from dualprop.training.resolved import make_net, net_arguments
from tests.slow import but_slow


def build_net(settings, in_shape, num_classes):
    return make_net(settings.net, net_arguments(settings, in_shape, num_classes), settings.seed)


PAPERS = ("cifar10-two-tales", "cifar10-vgg16", "cifar100-vgg16", "imagenet32-vgg16", "mnist-mlp", "mnist-mlp-4")
COMPARATORS = ("chl-mnist", "dtp-cifar10", "ep-cifar10", "ep-mnist", "hep-mnist", "lpom-mnist")
GRAPHS = ("cifar10-resnet8", "cifar10-vit-tiny", "mnist-hopfield")


@pytest.fixture
def mine(tmp_path):
    """Write a recipe of one's own; its path."""

    def write(text):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return write


def test_the_recipes_ship_with_the_package():
    assert set(recipes.shipped()) == {*PAPERS, *COMPARATORS, *GRAPHS, "mnist-comparison", "mnist-workers"}
    for name in recipes.shipped():
        assert tomllib.loads((resources.files("dualprop.training.recipes") / f"{name}.toml").read_text())["data"]


def test_package_data_names_them():
    """What setuptools puts into a wheel: the patterns in pyproject.toml match every recipe."""
    root = Path(recipes.__file__).parents[2]
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
    for name, batch_size in (("cifar100", 50), ("imagenet32", 250)):
        for rule, warmup_epochs, warmup_lr in (("dp", 10, 5e-3), ("kp-dp", 30, 1e-4)):
            s = recipes.load(f"{name}-vgg16", rule=rule)
            assert (s.data, s.net, s.loss) == (name, "vgg16", "cross_entropy")
            assert (s.augment, s.standardise) == (True, True)
            assert (s.epochs, s.batch_size, s.lr, s.lr_schedule) == (200, batch_size, 0.015, "cosine")
            assert (s.optimizer, s.momentum, s.weight_decay) == ("sgd", 0.9, 5e-4)
            assert (s.warmup_epochs, s.warmup_lr) == (warmup_epochs, warmup_lr)
            assert s.rule_settings == {"beta": 2 / batch_size}
    for name, layers in (("mnist-mlp", 3), ("mnist-mlp-4", 4)):
        s = recipes.load(name)
        assert (s.hidden, s.optimizer, s.lr, s.epochs) == ((1000,) * layers, "adam", 3e-5, 100)
        assert (s.loss, s.batch_size, s.val_fraction) == ("mse", 100, 0.1)


@pytest.mark.parametrize("name", [*PAPERS, "mnist-comparison"])
@pytest.mark.parametrize("rule", RULES)
def test_recipes_for_all_rules_suit_every_one(name, rule):
    """Names that exist; a rule that can be bound to a net of that kind, here a small one."""
    s = recipes.load(name, rule=rule, net="mlp", hidden=(4,))
    net = build_net(s, (3, 2, 2), 3)
    RULES[rule](net, loss=s.loss, **s.rule_settings)


@pytest.fixture
def few_images(monkeypatch):
    """In place of every data set ten images of its shape, noise on a few blocks of grey."""

    def load(name, *_):
        in_shape = (1, 28, 28) if name == "mnist" else (3, 32, 32)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (10, in_shape[0], 4, 4), generator=generator, dtype=torch.uint8)
        images = images.repeat_interleave(in_shape[1] // 4, 2).repeat_interleave(in_shape[2] // 4, 3)
        split = Split(images, torch.arange(10))
        classes = tuple(map(str, range(100 if name == "cifar100" else 10)))
        return Dataset(name, split, split, classes, (0.5,) * in_shape[0], (0.25,) * in_shape[0])

    monkeypatch.setattr(data, "load", load)


@pytest.mark.parametrize(
    "name",
    but_slow(
        recipes.shipped(),
        "cifar10-two-tales",
        "cifar10-vgg16",
        "cifar100-vgg16",
        "imagenet32-vgg16",
        "dtp-cifar10",
        "ep-cifar10",
    ),
)
@pytest.mark.usefixtures("few_images")
def test_every_recipe_makes_a_step(name):
    """With all that it says, on a batch of two: nothing that it names is missing, and every layer learns."""
    e = build(recipes.load(name, batch_size=2))
    net = e.trainer.net
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    e.trainer.learn(*next(iter(e.trainer.data)))
    assert math.isfinite(e.trainer.meter.tell()["loss"])
    assert not any(torch.equal(p, before[n]) for n, p in net.named_parameters())


def test_published_settings_of_the_comparators():
    s = recipes.load("ep-mnist")
    assert (s.rule, s.hidden, s.activation, s.loss) == ("ep", (512,), "shifted-sigmoid", "mse")
    assert (s.optimizer, s.lr, s.batch_size, s.epochs) == ("adam", 5e-4, 50, 2)
    assert {"T1": 30, "T2": 10, "beta": 0.1}.items() <= s.rule_settings.items()
    s = recipes.load("ep-cifar10")
    assert (s.rule, s.net, s.activation, s.loss) == (
        "ep-centred",
        "hopfield_cnn",
        "half-hard-sigmoid",
        "cross_entropy",
    )
    assert [s.lr * factor for factor in s.lr_factors] == pytest.approx([0.25, 0.15, 0.1, 0.08, 0.05])
    assert (s.momentum, s.weight_decay, s.batch_size, s.epochs, s.std_scale) == (0.9, 3e-4, 128, 120, 3)
    assert [LR_SCHEDULES[s.lr_schedule](s, e) for e in (0, 50, 100, 119)] == pytest.approx(
        [0.25, (0.25 + 1e-5) / 2, 1e-5, 1e-5]
    )
    assert {"T1": 250, "T2": 25, "beta": 1.0}.items() <= s.rule_settings.items()
    s = recipes.load("hep-mnist")
    assert (s.rule, s.hidden, s.activation, s.loss) == ("hep", (256, 256), "shifted-sigmoid", "cross_entropy")
    assert (s.optimizer, s.lr, s.momentum, s.batch_size, s.epochs) == ("sgd", 0.05, 0.0, 20, 50)
    assert {"N": 10, "T1": 200, "T2": 50, "beta": 0.4}.items() <= s.rule_settings.items()
    s = recipes.load("dtp-cifar10")
    assert (s.rule, s.net, s.activation, s.loss) == ("dtp", "hopfield_cnn", "elu", "cross_entropy")
    assert (s.optimizer, s.lr, s.momentum, s.weight_decay) == ("sgd", 0.05, 0.9, 1e-4)
    assert (s.batch_size, s.epochs, s.lr_epochs, s.min_lr) == (128, 90, 85, 1e-5)
    assert s.rule_settings["K"] == [20, 30, 35, 55, 20]
    net = build_net(s, (3, 32, 32), 10)
    sides = [(128, 16, 16), (128, 8, 8), (256, 4, 4), (256, 2, 2), (512, 1, 1), (10,)]
    assert net.shapes((3, 32, 32))[1:] == sides  # as torch.nn.Sequential(Conv2d, ELU, MaxPool2d) blocks have them
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    z = x
    for layer in net.chain[:-1]:
        z = torch.max_pool2d(F.elu(F.conv2d(z, layer.synapse.core.weight, layer.synapse.core.bias, padding=1)), 2)
    last = net.chain[-1].synapse
    torch.testing.assert_close(net(x), F.linear(z.flatten(1), last.weight, last.bias))
    assert s.rule_settings["sigma"] == [0.4, 0.4, 0.2, 0.2, 0.08]
    assert s.rule_settings["feedback_lr"] == [1e-4, 3.5e-4, 8e-3, 8e-3, 0.18]


@pytest.mark.parametrize("name", COMPARATORS)
def test_a_comparator_s_own_settings_do_not_reach_another_rule(name):
    s = recipes.load(name, rule="dp")
    assert (s.rule, s.activation, s.rule_settings) == ("dp", None, {})
    assert (s.lr, s.batch_size) == (recipes.load(name).lr, recipes.load(name).batch_size)


def test_the_end_of_a_cosine_scales_with_the_epochs_unless_it_is_given():
    assert recipes.load("ep-cifar10", epochs=12).lr_epochs == pytest.approx(10)
    assert recipes.load("ep-cifar10", epochs=12, lr_epochs=11.0).lr_epochs == 11
    assert recipes.load("ep-cifar10").lr_epochs == 100


def test_a_warm_up_scales_with_the_epochs_unless_it_is_given():
    assert recipes.load("cifar10-vgg16", epochs=4).warmup_epochs == pytest.approx(10 * 4 / 130)
    for epochs, warmup in ((4, 4), (20, 15), (130, 15), (200, 15)):  # what weight decay takes it takes
        assert recipes.load("cifar10-vgg16", epochs=epochs, rule="kp-dp").warmup_epochs == warmup
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


def test_a_net_s_own_settings_are_put_into_the_recipe_s(mine):
    path = mine('net = "hopfield_mlp"\nnet_settings = { top_down = "free", strength = 0.2 }')
    s = recipes.load(path, net_settings={"top_down": "skew"})
    assert s.net_settings == {"top_down": "skew", "strength": 0.2}
    net = build_net(s, (6,), 3)
    assert net.synapses[1].scale == -0.2
    assert isinstance(net.stack[0].potential, dp.potentials.Tanh)  # the net's own, where relu suits the rule


def test_a_plan_gives_each_rule_its_own_table():
    settings = plan(["dp", "kp-dp"], [0, 1], {"epochs": 26}, recipes.read("cifar10-vgg16"))
    assert [(s.rule, s.seed, s.warmup_epochs) for s in settings] == [
        ("dp", 0, 2.0),
        ("dp", 1, 2.0),
        ("kp-dp", 0, 15.0),
        ("kp-dp", 1, 15.0),
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("lr = ", "mine.toml"),
        ("learning = 1", "learning: Settings has no such argument"),
        ("lr = -1", "lr=-1"),
        ('lr = "fast"', "lr='fast': must be a finite number above 0"),
        ("rules = 3", "rules: must hold"),
        ("rules.dp = 3", "rules: must hold"),
        ("[rules.dpp]", "'dp'"),
        ("[rules.dp]\nlr = -1", "rules.dp: lr=-1"),
        ("[rules.dp]\nlearning = 1", "rules.dp: learning: Settings has no such argument"),
        ("epochs = 4\nlr_epochs = 5", "lr_epochs=5"),
        ("hidden = [1.5]", "hidden="),
        ('unscaled = ["epochs"]', "unscaled='epochs': must be of warmup_epochs, lr_epochs"),
        ('[rules.dp]\nunscaled = "lr_epochs"', "unscaled='lr_epochs': must be a list of words"),
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
    with pytest.raises(DualpropError, match="learning: Settings has no such argument"):
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
