"""The verdict: its rule at the edges, with numbers whose limits are worked out by hand."""

import math
from typing import NamedTuple

import pytest

from dualprop.studies.report.verdict import judge


class Published(NamedTuple):
    mean: float
    std: float | None
    seeds: int = 5


def spread(mean, s):
    """Three numbers of this mean and standard deviation."""
    return [mean - s, mean, mean + s]


# s = 0.3, n = 3 and s_p = 0.5, n_p = 5: 2 √(0.03 + 0.05) = 0.5657
@pytest.mark.parametrize(
    ("difference", "margin", "kind"),
    [
        (0.5656, 0.1, "agrees"),
        (-0.5656, 0.1, "agrees"),
        (0.5658, 0.1, "differs"),
        (-0.5658, 0.1, "differs"),
        (0.5658, 0.6, "agrees"),
        (0.61, 0.6, "differs"),
    ],
)
def test_three_seeds_agree_up_to_twice_the_error_of_the_difference_or_the_margin(difference, margin, kind):
    verdict = judge(Published(90.0, 0.5), spread(90 + difference, 0.3), margin)
    assert verdict.kind == verdict.words == kind
    assert verdict.difference == pytest.approx(difference)
    assert verdict.half == pytest.approx(2 * math.sqrt(0.09 / 3 + 0.25 / 5))


def test_the_published_seeds_count():
    values = spread(90.6, 0.3)
    assert judge(Published(90.0, 0.5, 5), values).kind == "differs"
    assert judge(Published(90.0, 0.5, 3), values).kind == "agrees"  # 2 √(0.03 + 0.0833) = 0.673


def test_a_difference_of_just_the_margin_agrees_whatever_binary_fractions_make_of_it():
    for mean in (98.43, 98.47, 41.28, 0.3, 7.7):
        for sign in (1, -1):
            value = round(mean + sign * 0.1, 2)
            assert judge(Published(mean, 0.0), [value] * 3, 0.1).kind == "agrees"
            assert judge(Published(mean, 0.0), [value + sign * 1e-3] * 3, 0.1).kind == "differs"


@pytest.mark.parametrize(("difference", "word"), [(0.08, "within"), (-0.08, "within"), (0.09, "outside")])
@pytest.mark.parametrize("n", [1, 2])
def test_fewer_seeds_never_agree(n, difference, word):
    """Not even within the margin."""
    verdict = judge(Published(98.45, 0.04), [98.45 + difference] * n, margin=0.1)
    assert verdict.words == f"n = {n}, {word} published ± 2 s"
    assert verdict.kind == word
    assert (verdict.difference, verdict.half) == (pytest.approx(difference), pytest.approx(0.08))


def test_without_a_published_spread_only_our_own_counts():
    verdict = judge(Published(36.81, None), spread(37.0, 0.3))
    assert (verdict.kind, verdict.half) == ("agrees", pytest.approx(2 * 0.3 / math.sqrt(3)))
    assert judge(Published(36.81, None), spread(37.2, 0.3)).kind == "differs"
    few = judge(Published(36.81, None), [36.81])
    assert (few.words, few.half) == ("n = 1, no spread was published", None)


def test_what_is_not_compared_has_no_difference():
    for verdict, words in (
        (judge(Published(1.0, 0.1), []), "not run"),
        (judge(Published(1.0, 0.1), [], unlike="anything"), "not run"),
        (judge(None, [1.0, 1.0, 1.0]), "nothing published"),
        (judge(Published(1.0, 0.1), [1.0] * 3, 0.1, "schedule shortened"), "not comparable: schedule shortened"),
    ):
        assert (verdict.words, verdict.difference, verdict.half) == (words, None, None)


def test_what_is_not_a_number_does_not_agree():
    assert judge(Published(1.0, 0.1), [math.nan, 1.0, 1.0]).kind == "differs"
    assert judge(Published(1.0, 0.1), [math.nan]).kind == "differs"
