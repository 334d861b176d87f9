"""Tables as TOML: what the shipped ones publish, rows from axes of any setting, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch

from dualprop import RULES
from dualprop.errors import DualpropError
from dualprop.studies import tables
from dualprop.training.resolved import make_net, net_arguments

PUBLISHED = {
    "mnist-mlp": {
        "test_accuracy": {
            "bp": (98.45, 0.04),
            "dp": (98.43, 0.03),
            "ms-dp": (98.40, 0.02),
            "l-dp": (98.42, 0.07),
            "p-dp": (98.47, 0.04),
            "r-dp": (98.48, 0.11),
        }
    },
    "cifar10-vgg16": {
        "test_accuracy": {
            "bp": (92.26, 0.23),
            "dp": (92.30, 0.11),
            "kp-dp": (91.84, 0.11),
            "ep-centred": (88.6, 0.2),
            "dtp": (89.38, 0.20),
        }
    },
    "imagenet32-vgg16": {
        "test_accuracy": {
            "bp": (41.28, 0.19),
            "dp": (41.48, 0.19),
            "ep-centred": (36.5, 0.3),
            "dtp": (36.81, None),
        },
        "test_accuracy_top5": {
            "bp": (64.89, 0.11),
            "dp": (64.90, 0.13),
            "ep-centred": (60.8, 0.4),
            "dtp": (60.54, None),
        },
    },
    "cifar100-vgg16": {
        "test_accuracy": {
            "bp": (69.63, 0.24),
            "dp": (69.57, 0.51),
            "kp-dp": (70.40, 0.25),
            "ep-centred": (61.6, 0.1),
        },
        "test_accuracy_top5": {
            "bp": (88.13, 0.22),
            "dp": (88.36, 0.13),
            "kp-dp": (88.57, 0.15),
            "ep-centred": (86.0, 0.1),
        },
    },
}


@pytest.mark.parametrize("name", tables.shipped())
def test_every_table_that_ships_is_one(name):
    """Every name in it exists, every published number has its row, every row its own name."""
    table = tables.read(name)
    assert len({row.name for row in table.rows}) == len(table.rows) > 0
    for row in {
        json.dumps(row.settings().rule_settings): row for row in table.rows if row.make != "bench"
    }.values():
        s = row.settings()
        with torch.device("meta"):
            net = make_net(s.net, net_arguments(s, (3, 32, 32), 10), 0)
            RULES[row.rule](net, loss=s.loss, **s.rule_settings)


def test_arguments_of_a_maker_may_be_an_axis(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "t"\nclaim = "c"\nmetrics.accuracy.title = "a"\n[[blocks]]\nmake = "stream"\n'
        'measure = { hold = 4, every = 2 }\nsettings = { data = "digits" }\n'
        'axes.rule = { Sideways = { rule = "bp", measure.pairing = "present" }, dp = { rule = "dp" } }\n'
        "axes.measure.hold = [1, 3]\n"
    )
    rows = tables.read(path).rows
    assert [row.name for row in rows] == ["Sideways-hold1", "Sideways-hold3", "dp-hold1", "dp-hold3"]
    assert [(row.rule, row.maker.pairing, row.maker.hold, row.maker.every) for row in rows] == [
        ("bp", "present", 1, 2),
        ("bp", "present", 3, 2),
        ("dp", "delayed", 1, 2),
        ("dp", "delayed", 3, 2),
    ]


def test_the_grids_that_were_asked_for():
    alpha = tables.read("alpha").rows
    accuracy = [row.at for row in alpha if row.make == "training"]
    for rule in ("dp", "dp-t", "damped dp"):
        found = {(at["alpha"], at["beta"], at["schedule"]) for at in accuracy if at["rule"] == rule}
        assert len(found) == 5 * 4 * 4
    assert sum(row.make == "convergence" for row in alpha) == 3 * 5 * 4
    for row in alpha:
        own = row.settings().rule_settings
        assert own["alpha"] == (1 - float(row.at["alpha"]) if row.rule == "dp-t" else float(row.at["alpha"]))
        assert own.get("damped", False) == (row.at["rule"] == "damped dp")
    for row in tables.read("two-tales").rows:
        if row.rule == "dp-t":
            s, alpha = row.settings(), float(row.at["alpha"])  # the authors', which is 1 - ours
            assert (s.rule_settings["alpha"], s.rule_settings["schedule"]) == (1 - alpha, "forward:16")
    s = tables.read("two-tales").rows[0].settings()
    assert (s.lr, s.warmup_lr, s.warmup_epochs, s.min_lr, s.lr_epochs) == (0.025, 0.001, 10, 2e-6, 120)
    assert (s.net, s.epochs, s.weight_decay, s.batch_size) == ("vgg16", 130, 5e-4, 100)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_was_published(name):
    rows = tables.read(name).rows
    for metric, numbers in PUBLISHED[name].items():
        found = {row.rule: row.published[metric] for row in rows if metric in row.published}
        assert {rule: (n.mean, n.std) for rule, n in found.items()} == numbers
        assert {(n.seeds, "ICML 2023" in n.source) for n in found.values()} == {(5, True)}


def test_the_mnist_table_is_the_paper_s_setting():
    rows = tables.read("mnist-mlp").rows
    s = rows[1].settings(seed=3)
    assert (s.rule, s.data, s.net, s.hidden, s.loss) == ("dp", "mnist", "mlp", (1000,) * 3, "mse")
    assert (s.optimizer, s.lr, s.batch_size, s.epochs, s.val_fraction, s.seed) == ("adam", 3e-5, 100, 100, 0.1, 3)


@pytest.fixture
def mine(tmp_path):
    """Write a table of one's own; its path."""

    def write(block, head="metrics.test_loss.title = 'loss'"):
        path = tmp_path / "mine.toml"
        path.write_text(f"title = 'mine'\nclaim = 'none'\n{head}\n[[blocks]]\n{block}\n")
        return path

    return write


def test_axes_are_settings_of_runs_rules_and_nets_and_words_for_several(mine):
    path = mine(
        """
settings = { lr = 0.5, rule_settings = { schedule = "sweep:2" } }
axes.rule = ["dp", "dp-t"]
axes.hidden = [[4], [4, 5]]
axes.rule_settings.beta = [0.1, 1.0]
axes.published_alpha."0" = { rule_settings = { alpha = 1.0 }, epochs = 3 }
axes.published_alpha."1" = { rule_settings = { alpha = 0.0 } }
published = [{ at = { rule = "dp", beta = 1.0 }, values.test_loss = 0.5, source = "a book", seeds = 2 }]
"""
    )
    rows = tables.read(path).rows
    assert len(rows) == 2**4
    row = rows[0b1010]
    assert row.at == {"rule": "dp-t", "hidden": "4", "beta": "1", "published_alpha": "0"}
    assert (row.name, row.label) == (
        "dp-t-hidden4-beta1-published_alpha0",
        "dp-t, hidden 4, beta 1, published_alpha 0",
    )
    s = row.settings(seed=2, common={"rule_settings": {"lazy": True}, "lr": 0.25})
    assert s.rule_settings == {"schedule": "sweep:2", "beta": 1.0, "alpha": 1.0, "lazy": True}
    assert (s.rule, s.hidden, s.epochs, s.lr, s.seed) == ("dp-t", (4,), 3, 0.25, 2)
    assert row.settings().rule_settings == {"schedule": "sweep:2", "beta": 1.0, "alpha": 1.0}
    published = [row for row in rows if row.published]
    assert {(row.at["rule"], row.at["beta"]) for row in published} == {("dp", "1")}
    number = published[0].published["test_loss"]
    assert (number.mean, number.std, number.seeds, number.source) == (0.5, None, 2, "a book")


def test_blocks_start_from_the_settings_of_the_table(mine):
    head = """
settings = { lr = 0.5, epochs = 3, rule_settings = { beta = 0.25 } }
metrics.test_loss.title = "loss"
"""
    (row,) = tables.read(mine("settings = { lr = 0.25, rule_settings = { lazy = true } }", head)).rows
    s = row.settings()
    assert (s.lr, s.epochs, s.rule_settings) == (0.25, 3, {"beta": 0.25, "lazy": True})


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("axes.rul = ['dp']", "unknown name 'rul'; did you mean 'rule'"),
        ("axes.rule = 'dp'", "axes.rule='dp': must be a list"),
        ("axes.rule = [[1]]", "rule=[1]: must be a word"),
        ("axes.rule_settings.beta = 3", "axes.rule_settings.beta=3: must be a list of anything"),
        ("axes.x.y = 3", "axes.x={'y': 3}: must be a table"),
        ("axes.seed = [1, 2]", "seed: every cell has its own"),
        ("published = [{ at = {}, values.test_loss = [] }]", "values={'test_loss': []}: must be a table"),
        ("published = [{ at = {}, values.test_loss = [1, 2, 3] }]", "values={'test_loss': [1, 2, 3]}: must be"),
        ("axes.rule = ['dq']", "unknown rule 'dq': did you mean 'dp'"),
        ("settings.epoch = 3", "epoch: Settings has no such argument; did you mean 'epochs'"),
        ("settings.epochs = 0", "epochs=0: must be a whole number of at least 1"),
        ("settings.rule_settings.bet = 0.1", "bet: DualProp has no such setting"),
        ("recipe = 'mnist-nlp'", "unknown recipe 'mnist-nlp': did you mean 'mnist-mlp'"),
        ("make = 'trainin'", "unknown maker 'trainin': did you mean 'training'"),
        ("axis.rule = ['dp']", "axis: Block has no such argument; did you mean 'axes'"),
        ("published = [{ at.rule = 'dp', values.test_loss = 1 }]", "published.at={'rule': 'dp'}: no row is there"),
        ("published = [{ at = {}, values.accuracy = 1 }]", "published: unknown name 'accuracy'"),
        ("published = [{ at = {}, values.test_loss = 'low' }]", "values="),
        ("axes.rule = ['dp', 'dp']", "two rows are called 'dp'"),
    ],
)
def test_what_is_wrong_is_one_line(mine, block, line):
    with pytest.raises(DualpropError, match=re.escape(line)) as error:
        tables.read(mine(block))
    assert "\n" not in str(error.value)


def test_an_unknown_table_names_near_ones():
    with pytest.raises(DualpropError, match="unknown table 'mnist-mpl': did you mean 'mnist-mlp'"):
        tables.read("mnist-mpl")
    with pytest.raises(DualpropError, match=r"absent.toml: no such file"):
        tables.read("absent.toml")


RESULTS = Path(__file__).parents[3] / "results"


@pytest.fixture
def edited(tmp_path):
    """A copy of a record in results/ with other values in its files, under a name that says nothing."""

    def edit(record, **files):
        copy = tmp_path / "x" / str(len(list(tmp_path.rglob("result.json"))))
        copy.mkdir(parents=True)
        for file in (RESULTS / record).iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        for name, change in files.items():
            path = copy / f"{name}.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        return copy

    return edit


def test_records_are_found_by_what_they_say(edited, tmp_path):
    edited("mnist-mlp/dp-seed1")
    edited("mnist-mlp/dp-seed1", settings={"epochs": 7, "val_fraction": 0.5, "seed": 9})
    edited("mnist-mlp/dp-seed1", settings={"lr": 1e-3})
    edited("mnist-mlp/dp-seed1", settings={"rule_settings": {"beta": 0.5}}, resolved={"rule": {"beta": 0.5}})
    edited("mnist-mlp/dp-seed1", settings={"precision": "bf16", "rule_settings": {"alpha": 0.5}, "device": "cuda"})
    edited("mnist-mlp/p-dp-seed1")
    edited("mnist-mlp/dp-seed1", resolved={"own": {"net": "8 weights"}})
    for net in ({}, {"in_shape": [[1]], "num_classes": 10}, {"in_shape": [1, 28, 28], "num_classes": "ten"}):
        edited("mnist-mlp/dp-seed1", resolved={"net": net})
    table = tables.read("mnist-mlp")
    found = tables.find(table, tables.records([tmp_path]))
    assert [(each.row.rule, each.seed, each.differences) for each in found] == [
        ("dp", 1, {}),
        ("dp", 9, {"epochs": (7, 100), "val_fraction": (0.5, 0.1)}),
        ("dp", 1, {}),
        ("p-dp", 1, {}),
    ]
    assert found[0].numbers["test_accuracy"] == 0.9851
    assert tables.find(tables.read("cifar10-vgg16"), tables.records([tmp_path])) == []


def test_a_record_that_is_one_row_in_full_is_no_other(edited, mine, tmp_path):
    edited("mnist-mlp/dp-seed1")
    table = tables.read(mine("recipe = 'mnist-mlp'\naxes.epochs = [50, 100]"))
    (found,) = tables.find(table, tables.records([tmp_path / "x"]))
    assert (found.row.label, found.differences) == ("epochs 100", {})


def test_rows_by_rule_and_by_name():
    table = tables.read("imagenet32-vgg16")
    assert [row.name for row in table.chosen(["bp"])] == ["bp", "ten-classes-bp"]
    assert [row.name for row in table.chosen(None, ["ten-*", "dp"])] == [
        "dp",
        *(f"ten-classes-{rule}" for rule in ("bp", "dp", "kp-dp")),
    ]
    assert [row.name for row in table.chosen(["dp"], ["ten-*"])] == ["ten-classes-dp"]
    with pytest.raises(DualpropError, match="cells='ten-classes': the table imagenet32-vgg16 has no such"):
        table.chosen(None, ["ten-classes"])


def test_data_of_fewer_classes_are_a_part(edited, mine, tmp_path):
    edited("mnist-mlp/dp-seed1")
    table = tables.read(mine("recipe = 'mnist-mlp'\nclasses = 100"))
    (found,) = tables.find(table, tables.records([tmp_path / "x"]))
    assert found.differences == {"classes": (10, 100)}


def test_what_is_newer_than_a_record_is_another_setting_where_it_is_chosen(edited, mine, tmp_path):
    """A record from before a rule had a setting has that setting's default, and nothing else."""
    rule = {"beta": 1.0, "schedule": "sweep:1", "transpose": False, "lazy": False, "rounds": 1}
    edited("mnist-mlp/dp-seed1", resolved={"rule": rule})
    table = tables.read(mine("recipe = 'mnist-mlp'\naxes.rule_settings.alpha = [0.5, 0.25]\naxes.lr = [3e-5]"))
    assert tables.find(table, tables.records([tmp_path / "x"])) == []
    table = tables.read(mine("recipe = 'mnist-mlp'"))
    assert len(tables.find(table, tables.records([tmp_path / "x"]))) == 1


def test_a_damaged_record_is_a_warning_and_a_damaged_line_is_counted(edited, tmp_path, caplog):
    edited("mnist-mlp/dp-seed1", result={"test_accuracy": 7})
    metrics = edited("mnist-mlp/dp-seed0") / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + "{\n" + '{"kind": "epo')
    found = tables.find(tables.read("mnist-mlp"), tables.records([tmp_path]))
    assert [each.seed for each in found] == [0]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "test_accuracy=7: must be" in lines[0]
    assert "2 lines that are no records left out" in lines[1]


def test_an_unfinished_record_has_no_numbers(edited, tmp_path):
    (edited("mnist-mlp/dp-seed1") / "result.json").unlink()
    (found,) = tables.find(tables.read("mnist-mlp"), tables.records([tmp_path]))
    assert (found.record.complete, found.record.diverged, dict(found.numbers)) == (False, "", {})
