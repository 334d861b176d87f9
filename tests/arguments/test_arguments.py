"""The one mechanism behind every constructor: types and ranges at their ends, and errors of one line."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction as Rational
from typing import Annotated, Any, get_type_hints

import numpy as np
import pytest
import torch
from pydantic import Field

import dualprop as dp
from dualprop.arguments import (
    Count,
    CountOrZero,
    Fraction,
    In,
    NotNegative,
    Number,
    PerLayer,
    Portion,
    Positive,
    PositivePortion,
    Seed,
    Several,
    allowed,
    check,
    checked,
    declared,
    per_layer,
    read,
)
from dualprop.errors import DualpropError, UnknownNameError
from dualprop.registry import Registry

TINY, HUGE = 5e-324, 1.7e308
BELOW_ONE, ABOVE_ONE = math.nextafter(1, 0), math.nextafter(1, 2)
COLOURS = Registry("colour", red=1, green=2)
Even = Annotated[Count, Field(ge=2, multiple_of=2)]

ENDS = [
    (Number, [-HUGE, 0, HUGE], [], "a finite number"),
    (Positive, [TINY, HUGE, 1], [0, 0.0, -0.0, -TINY], "a finite number above 0"),
    (NotNegative, [0, -0.0, HUGE], [-TINY, -1], "a finite number of at least 0"),
    (Portion, [0, 1, 0.5], [-TINY, ABOVE_ONE], "a number in [0, 1]"),
    (PositivePortion, [TINY, 1], [0, ABOVE_ONE], "a number in (0, 1]"),
    (Fraction, [0, BELOW_ONE], [-TINY, 1], "a number in [0, 1)"),
    (Count, [1, 2**63 - 1], [0, -1, 2**63], "a whole number of at least 1"),
    (CountOrZero, [0, 2**63 - 1], [-1, 2**63], "a whole number of at least 0"),
    (Seed, [0, 2**63 - 1], [-1, 2**63], "a whole number of at least 0"),
    (Even, [2, 4], [0, 1, 3, -2], "a whole number of at least 2, a multiple of 2"),
]
NO_NUMBERS = [True, False, np.True_, None, "1", "", b"1", [1], (1,), 1j, math.nan, math.inf, -math.inf, 10**400]
NO_NUMBERS += [np.array(1), np.array([1.0]), torch.tensor(1), torch.tensor(1.0), object(), int]


@pytest.mark.parametrize(("kind", "inside", "outside", "words"), ENDS, ids=lambda v: v if type(v) is str else "")
def test_ranges_at_their_ends(kind, inside, outside, words):
    assert allowed(kind) == words
    for value in inside:
        assert check("n", value, kind) == value
    for value in outside:
        with pytest.raises(DualpropError) as caught:
            check("n", value, kind)
        assert str(caught.value) == f"n={value!r}: must be {words}{', below 2**63' if value == 2**63 else ''}"


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize("kind", [end[0] for end in ENDS], ids=[end[3] for end in ENDS])
def test_what_is_no_number_in_python(kind, value):
    with pytest.raises(DualpropError, match=r"^n(=|: of type)") as caught:
        check("n", value, kind)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [1.0, np.float64(1), 1.5, Rational(1)], ids=repr)
def test_what_is_no_whole_number(value):
    assert check("n", value, Number) == value
    with pytest.raises(DualpropError, match=r"must be a whole number"):
        check("n", value, Count)


@pytest.mark.parametrize("make", [np.int8, np.uint64, np.float16, np.float32, np.float64])
def test_numbers_of_numpy_come_as_python_s_own(make):
    number = check("x", make(3), Positive)
    assert (number, type(number).__name__) in [(3.0, "float"), (3.0, "float64")]
    if issubclass(make, np.integer):
        assert type(check("n", make(3), Count)) is int


@dataclass(frozen=True)
class Sweep:
    """Data.

    Args:
        n: how often.
    """

    n: Count = 1
    own: int = 0


checked(Sweep)


class Rule:
    """A class.

    Args:
        beta: its strength.
    """

    @checked
    def __init__(
        self,
        net: torch.nn.Module,
        beta: PerLayer[Positive] = 1.0,
        *,
        colour: Annotated[str, In(COLOURS)] = "red",
        sweep: Annotated[Sweep | str, In(COLOURS)] = "green",
        sizes: Several[Count] | None = None,
        other: Rule | None = None,
        flag: bool = False,
    ) -> None:
        """Bound to a net."""
        self.beta, self.sizes = beta, sizes


class Mine(Rule):
    """A user's subclass, whose own arguments are its own business."""

    def __init__(self, net, strength, **options):
        super().__init__(net, **options)
        self.strength = strength


NET = torch.nn.Linear(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Rule(NET, 0), "beta=0: must be a finite number above 0 or a list of such"),
        (lambda: Rule(NET, [1, "x"]), "beta=[1, 'x']: must be a finite number above 0 or a list of such"),
        (lambda: Rule(NET, beta="1"), "beta='1': must be a finite number above 0 or a list of such"),
        (lambda: Rule(3), "net=3: must be a torch.nn.Module"),
        (lambda: Rule(torch.nn.Linear), "net: of type Linear, but it must be a torch.nn.Module"),
        (lambda: Rule(object()), "net: of type object, but it must be a torch.nn.Module"),
        (lambda: Rule(NET, flag=1), "flag=1: must be true or false"),
        (lambda: Rule(NET, flag=None), "flag=None: must be true or false"),
        (lambda: Rule(NET, sizes=[0]),
         "sizes=[0]: must be none or a list of whole numbers of at least 1"),
        (lambda: Rule(NET, colour="gren"),
         "unknown colour 'gren': did you mean 'green' or 'red'? Known: red, green"),
        (lambda: Rule(NET, colour=3), "colour=3: must be one of red, green"),
        (lambda: Rule(NET, sweep=3), "sweep=3: must be a tests.Sweep or one of red, green"),
        (lambda: Rule(NET, other=3), "other=3: must be a tests.Rule or none"),
        (lambda: Rule(), "net: missing; Rule needs it"),
        (lambda: Rule(NET, color="red"), "color: Rule has no such argument; did you mean 'colour'? "
         "Known: net, beta, colour, sweep, sizes, other, flag"),
        (lambda: Rule(NET, 1, 2), "Rule: got more arguments than it takes, 2"),
        (lambda: Rule(NET, net=NET), "net: given to Rule twice"),
        (lambda: Sweep(0), "n=0: must be a whole number of at least 1"),
        (lambda: Sweep(m=1), "m: Sweep has no such argument; Known: n, own"),
        (lambda: Mine(NET, 1, beta=-1), "beta=-1: must be a finite number above 0 or a list of such"),
        (lambda: Rule(NET, beta=[1.0] * 99 + [0]),
         "beta: of type list, but it must be a finite number above 0 or a list of such"),
        (lambda: Rule("a\nb"), r"net='a\nb': must be a torch.nn.Module"),
    ],
)  # fmt: skip
def test_errors_are_one_line_that_names_argument_value_and_what_is_allowed(call, message):
    with pytest.raises(DualpropError) as caught:
        call()
    assert str(caught.value) == message
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, UnknownNameError) == message.startswith("unknown")


def test_what_is_right_arrives():
    rule = Rule(NET, np.float32(0.5), sizes=[3, np.int64(4)], other=Mine(NET, "strong"))
    assert (rule.beta, rule.sizes) == (0.5, (3, 4))
    assert Rule(NET, (1, 2)).beta == (1.0, 2.0)
    assert Mine(NET, "strong", beta=[1]).strength == "strong"
    assert Sweep(3) == Sweep(n=np.int64(3))


def test_signature_hints_and_docstring_stay():
    parameters = inspect.signature(Rule).parameters
    assert list(parameters) == ["net", "beta", "colour", "sweep", "sizes", "other", "flag"]
    assert parameters["beta"].default == 1.0
    assert Rule.__init__.__doc__ == "Bound to a net."
    assert get_type_hints(Rule.__init__)["flag"] is bool
    assert declared(Rule)["sizes"] == Several[Count] | None
    assert declared(Sweep) == {"n": Count, "own": int}


@pytest.mark.parametrize(
    "thing", [Mine(NET, 1, beta=2), Sweep(3), checked], ids=["object", "dataclass", "function"]
)
def test_copies_and_pickles(thing):
    for copied in (copy.deepcopy(thing), pickle.loads(pickle.dumps(thing))):
        assert type(copied) is type(thing)
        assert getattr(copied, "__dict__", {}).keys() == getattr(thing, "__dict__", {}).keys()


def test_an_error_of_the_body_is_the_body_s():
    @checked
    def fail(n: Count) -> None:
        check("inner", 0, Count)

    with pytest.raises(DualpropError, match=r"^inner=0"):
        fail(1)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", Count, 3),
        ("0.5", Positive, 0.5),
        ("1e-3", Positive, 1e-3),
        ("true", bool, True),
        ("256,128", Several[Count], (256, 128)),
        ("256", Several[Count] | None, (256,)),
        ("", Several[Count] | None, ""),
        ("1,0.5", PerLayer[Positive], [1.0, 0.5]),
        ("0.5", PerLayer[Positive], 0.5),
        ("7", str, "7"),
        ("7", str | None, "7"),
        ("sweep:2", Annotated[Sweep | str, Field()], "sweep:2"),
        ("-1", Count, -1),
        ("1.5", Count, 1.5),
        ("x", Count, "x"),
        ("10,x", Several[Count], "10,x"),
        (".5", Any, 0.5),
        ("-1.", Any, -1.0),
        ("+2e3", Any, 2000.0),
        ("nan", Any, "nan"),
        ("1_000", Any, "1_000"),
    ],
)
def test_words_of_the_command_line(text, kind, value):
    found = read(text, kind)
    assert found == value
    assert type(found) is type(value)


def test_one_for_each_layer():
    assert per_layer("beta", 2.0, 3) == (2.0, 2.0, 2.0)
    assert per_layer("beta", [1.0, 2.0], 2) == (1.0, 2.0)
    assert per_layer("beta", 2.0, 0) == ()
    for wrong in ([], [1.0], [1.0] * 3):
        with pytest.raises(DualpropError, match=rf"^beta=.*: {len(wrong)} numbers, but the net has 2 maps$"):
            per_layer("beta", wrong, 2, "maps")


def test_a_list_in_words():
    assert allowed(Sequence[Count]) == "a list of whole numbers of at least 1"
    assert allowed(list[torch.nn.Module]) == "a list of torch.nn.Modules"


def test_a_dataclass_may_inherit_fields_whose_types_its_module_does_not_know():
    source = "@checked\n@dataclass(frozen=True)\nclass Faster(Simulated):\n    factor: float = 2.0\n"
    names = {
        "__name__": "elsewhere",
        "checked": checked,
        "dataclass": dataclass,
        "Simulated": dp.distributed.Simulated,
    }
    exec(compile(source, "elsewhere", "exec", dont_inherit=True), names)
    assert names["Faster"](loss=0.5, factor=3.0).loss == 0.5
    for wrong, words in ({"loss": 2.0}, "a number in"), ({"factor": "x"}, "a finite number|a number"):
        with pytest.raises(DualpropError, match=f"^{next(iter(wrong))}=.*must be {words}"):
            names["Faster"](**wrong)
