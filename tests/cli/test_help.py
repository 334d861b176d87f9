"""Help: two screens, every setting in its group, names, a rule's own settings when it is named; completion."""

import dataclasses
import inspect
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from dualprop import LOSSES, NETS, POOLS, POTENTIALS, RULES, cli, recipes
from dualprop.data import DATASETS
from dualprop.rules.standing import CHANNELS
from dualprop.runs.settings import Settings

SCREENS = 2 * 60
"""Lines, in a terminal of 100 columns."""
FLAGS = {
    "Parameters": "--run --out --resume --recipe",
    "what": "--rule --data --net --hidden --activation --init --init-from --pool --feedback --loss "
    "--label-smoothing --net-settings",
    "optimizer": "--optimizer --lr --lr-factors --momentum --weight-decay --clip-norm --[no-]fused-update --ema",
    "schedule": "--lr-schedule --min-lr --lr-epochs --warmup-epochs --warmup-lr --epochs",
    "data": "--batch-size --val-fraction --[no-]augment --[no-]standardise --std-scale --image-size --background "
    "--[no-]verify-data --data-root",
    "precision": "--precision --[no-]channels-last --[no-]compile",
    "run": "--seed --[no-]alignment --device --threads --log-every --checkpoint-every",
}


OF_EVERY_RULE = ("--rule-settings", "--devices", "--noise", "--state-bits", "--weight-bits")


def own_of(method):
    """The settings of a rule that a run has not, nor the file of `--devices`."""
    return (
        set(method.known_settings) - {field.name for field in dataclasses.fields(Settings)} - {*CHANNELS, "noise"}
    )


def described_in(thing, argument):
    """The first line about an argument in a docstring, whose first word has a large letter in help.

    Python 3.13 keeps no common indentation.
    """
    text = re.search(rf"(?m)^    {argument}: (.*)", inspect.getdoc(thing))[1]
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def helped(out):
    """The groups of a help text: for each its words, and the options in its first column."""
    groups, name = {}, None
    for line in out.splitlines():
        if line and not line.startswith(" ") and not line.startswith("Usage"):
            name = line.split(" (")[0]
            groups[name] = ("", [])
        elif name is not None:
            words, options = groups[name]
            label = line[2:].partition("  ")[0] if re.match("  -", line) else ""
            groups[name] = (f"{words} {line.strip()}", [*options, *label.split()])
    return groups


@pytest.mark.parametrize("command", ["train", "compare", "stream", "reproduce", "bench"])
def test_help_is_two_screens(dualprop, monkeypatch, command):
    said = {}
    for width in (80, 100):
        monkeypatch.setattr(cli.app, "console", Console(width=width))
        code, out, _ = dualprop(command, "--help")
        assert code == 0
        said[width] = out.splitlines()
        assert max(map(len, said[width])) <= width
    assert len(said[100]) <= SCREENS


def test_every_setting_is_an_option_of_its_group_with_its_help(dualprop):
    groups = helped(dualprop("train", "--help")[1])
    for name, flags in FLAGS.items():
        assert " ".join(groups[name][1]) == flags
    for field in dataclasses.fields(Settings):
        words, options = groups[field.metadata["group"]]
        described = described_in(Settings, field.name)
        assert {f"--{field.name.replace('_', '-')}", f"--[no-]{field.name.replace('_', '-')}"} & set(options)
        assert " ".join(described.replace("`", "").split()[:4]) in words


def test_a_comparison_has_the_same_but_for_rule_and_seed(dualprop):
    groups = helped(dualprop("compare", "--help")[1])
    for name, flags in FLAGS.items():
        paid = "--energy --to-accuracy"
        mine = f"--rules --seeds --out --resume {paid} --recipe" if name == "Parameters" else flags
        assert groups[name][1] == [f for f in mine.split() if f not in ("--rule", "--seed")]


def test_names_are_listed(dualprop):
    words = " ".join(dualprop("train", "--help")[1].split())
    for names in (RULES, NETS, DATASETS, LOSSES, POTENTIALS, POOLS, recipes.shipped()):
        assert f"Names: {', '.join(names)}." in words


def test_which_rule_has_which_settings(dualprop):
    words = helped(dualprop("train", "--help")[1])["rule"][0].split("--weight-bits ")[1]
    rows = re.findall(r"((?:[\w-]+, )*[\w-]+|every rule) +((?: *--[\w-]+)+)", words)
    shown = {rule: flags.split() for rules, flags in rows for rule in rules.split(", ")}
    every = shown.pop("every rule", [])
    for rule, method in RULES.items():
        own = {f"--{each.replace('_', '-')}" for each in own_of(method)}
        assert {*every, *shown.get(rule, [])} == own


@pytest.mark.parametrize("rule", ["dp", "ep", "dtp", "bp"])
def test_the_settings_of_a_rule_that_is_named(dualprop, rule):
    for words in (("train", "--rule", rule), ("train", f"--rule={rule}"), ("compare", "--rules", f"{rule},bp")):
        groups = helped(dualprop(*words, "--help")[1])
        (name,) = [name for name in groups if name.startswith(f"rule {rule}")]
        text, options = groups[name]
        own = own_of(RULES[rule])
        shown = {option.replace("--[no-]", "--") for option in options}
        assert shown == {*OF_EVERY_RULE, *(f"--{each.replace('_', '-')}" for each in own)}
        for each in own & set(re.findall(r"(?m)^    (\w+): ", inspect.getdoc(RULES[rule].rule))):
            described = described_in(RULES[rule].rule, each)
            assert " ".join(described.split()[:4]) in text
    both = helped(dualprop("compare", "--rules", "dp,ep", "--help")[1])["rule dp, ep"][0]
    assert re.search(r"--beta +The strength of the nudges.*?\(dp\) β, positive.*?\(ep\)", both)


def test_completion_knows_commands_options_and_names(dualprop):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    code, script, _ = dualprop("completion", "bash")
    assert code == 0
    ask = """
eval "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p dualprop | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function dualprop "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

    def completed(*words):
        done = subprocess.run(["bash", "-c", ask, "-", script, *words], capture_output=True, text=True, check=True)
        return {word.strip() for word in done.stdout.split("\n")} - {""}

    assert completed("dualprop", "tr") == {"train"}
    assert completed("dualprop", "train", "--warmup-") == {"--warmup-epochs", "--warmup-lr"}
    assert {"dp", "dp-t"} <= completed("dualprop", "train", "--rule", "dp")
    assert "bp" not in completed("dualprop", "train", "--rule", "dp")
    assert completed("dualprop", "train", "--data", "cifar10") == {"cifar10", "cifar100"}
    assert dualprop("completion", "tcsh")[0] == 2
