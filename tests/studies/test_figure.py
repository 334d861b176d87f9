"""Figures: every rule looks like no other, epochs are whole numbers, few points are seen."""

import matplotlib
import pytest
from matplotlib.figure import Figure

import dualprop as dp
from dualprop.studies._figure import FEW, curves, errors_axis, legend, look, panels, plain_ticks, styled


def test_every_rule_has_a_look_of_its_own_with_room_for_more(monkeypatch):
    names = list(dp.RULES)
    for n in range(8):
        monkeypatch.setitem(dp.RULES, f"toy-{n}", dp.Method(dp.Backprop, "a toy"))
    looks = [(look(rule)["color"], str(look(rule)["linestyle"])) for rule in dp.RULES]
    assert len(set(looks)) == len(looks) >= 22
    assert [look(rule)["color"] for rule in names] == [color for color, _ in looks[: len(names)]]
    assert look("bp")["color"] == "#000000"
    look("a rule of another version")  # a record may name one


def test_a_rule_looks_the_same_whatever_is_beside_it():
    figure, (axes,) = panels(1, (3, 3), 1)
    curves(axes, "dp", [[1.0, 2.0]])
    other, (alone, _) = panels(2, (3, 3), 2)
    curves(alone, "bp", [[1.0, 2.0]])
    curves(alone, "dp", [[1.0, 2.0]])
    assert axes.lines[0].get_color() == alone.lines[1].get_color() != alone.lines[0].get_color()
    assert figure is not other


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 20, 56, 130])
def test_ticks_are_whole_epochs_and_few_points_are_marked(epochs):
    figure, (axes,) = panels(1, (6, 4), 1)
    curves(axes, "dp", [[1.0] * epochs, [3.0] * epochs])
    figure.draw_without_rendering()
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == [round(tick) for tick in ticks]
    assert 1 <= len(ticks) <= 10
    assert (axes.lines[0].get_marker() != "None") == (epochs <= FEW)
    assert list(axes.lines[0].get_xdata()) == list(range(1, epochs + 1))
    assert set(axes.lines[0].get_ydata()) == {2.0}


@pytest.mark.parametrize("low", [1e-3, 0.03, 0.9, 2.1, 55])
@pytest.mark.parametrize("ratio", [1.1, 1.3, 2.2, 5, 40, 1000, 1e6])
def test_a_logarithmic_axis_of_any_range_has_plain_ticks(low, ratio):
    axes = Figure().subplots()
    axes.set(yscale="log", ylim=(low, low * ratio))
    plain_ticks(axes.yaxis, low, low * ratio)
    ticks = axes.get_yticks()
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert (1 if ratio < 2 else 2) <= len(ticks) <= 9
    assert list(ticks) == sorted(ticks)


def test_errors_of_zero_are_on_the_axis():
    for errors in ([0.0, 3.0, 20.0], [0.0, 0.0]):
        axes = Figure().subplots()
        axes.plot(errors)
        errors_axis(axes, errors)
        assert axes.get_ylim()[0] < 0 in axes.get_yticks()
    axes = Figure().subplots()
    errors_axis(axes, [3.0, 20.0])
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 3 < 20 < axes.get_ylim()[1]


def test_panels_beyond_the_columns_go_below():
    figure, axes = panels(6, (2, 2), 4)
    assert len(axes) == 6
    assert len({axis.get_position().y0 for axis in axes}) == 2
    assert [axis.get_xlabel() for axis in axes] == ["", "", "epoch", "epoch", "epoch", "epoch"]
    assert sum(axis.get_visible() for axis in figure.axes) == 6


def test_no_matplotlibrc_has_latex_run_or_a_huge_picture_drawn(monkeypatch):
    """One in the working directory is read by matplotlib, whoever has put it there."""
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setitem(matplotlib.rcParams, "savefig.pad_inches", 1000.0)

    @styled
    def seen():
        return {name: matplotlib.rcParams[name] for name in ("text.usetex", "savefig.pad_inches", "savefig.dpi")}

    assert seen() == {"text.usetex": False, "savefig.pad_inches": 0.1, "savefig.dpi": 150}


def test_a_name_that_looks_like_mathematics_is_a_name():
    figure, (axes,) = panels(1, (3, 3), 1)
    curves(axes, "$\\frac$\x1b", [[1.0, 2.0]])
    legend(figure, axes)
    figure.draw_without_rendering()
    assert axes.lines[0].get_label() == "$\\frac$\\x1b"
