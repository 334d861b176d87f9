"""What a schedule asks of a net: the layers that can learn are those whose gradients the twin finds not zero."""

from __future__ import annotations

import random
import warnings

import pytest
import torch

import dualprop as dp
from dualprop.engines.dyads._reach import updates_to_learn
from dualprop.engines.dyads.schedules import Update
from tests.engines.dyads.test_twin import twin_of
from tests.oracles.builders import double_batch, double_net, gradient_of


class Listed(dp.Schedule):
    """A user's schedule: these updates."""

    def __init__(self, *updates):
        self.listed = [Update(*update) for update in updates]

    def updates(self, depth, generator):
        yield from self.listed


def any_order(seed: int, depth: int) -> dp.Schedule:
    """Up to 2L updates of one layer or of several, nudged or not."""
    draw = random.Random(seed)
    layers = range(1, depth + 1)
    return Listed(
        *(
            (tuple(draw.sample(layers, draw.choice([1, 1, depth]))), draw.random() < 0.8)
            for _ in range(draw.randint(1, 2 * depth))
        )
    )


def learning_of_twin(schedule: dp.Schedule, depth: int, rounds: int, lazy: bool) -> set[int]:
    """The layers whose weights have a gradient after one of the twin's inferences."""
    net = double_net((2,) * (depth + 1))
    twin = twin_of(dp.DualProp(net, beta=0.5), ["tanh"] * (depth - 1) + ["linear"], "mse")
    x, y = double_batch(2, 2, 2)
    twin.start(x.numpy())
    learning, done = set(), 0
    for _ in range(3 * depth if lazy else rounds):
        if isinstance(schedule, dp.Parallel):
            count = schedule.ticks or 2 * depth - 1
            twin.ticks(count, torch.eye(2)[y].numpy(), done)
            done += count if lazy else 0
        else:
            for layers, nudged in schedule.updates(depth, torch.Generator()):
                twin.update(layers, torch.eye(2)[y].numpy() if nudged else None)
        weights, _ = twin.gradient()
        learning |= {k for k, weight in enumerate(weights, 1) if weight.any()}
    return learning


WAYS = [(1, False), (3, False), (1, True), (2, True)]


@pytest.mark.parametrize(("rounds", "lazy"), WAYS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_layers_that_learn_are_those_of_the_twin(depth, rounds, lazy):
    schedules = [dp.Parallel(ticks) for ticks in range(1, 2 * depth + 2)]
    schedules += [any_order(seed, depth) for seed in range(25)]
    found = []
    for schedule in schedules:
        found.append(learning_of_twin(schedule, depth, rounds, lazy))
        assert schedule.learning(depth, rounds, lazy) == found[-1], vars(schedule)
    assert set(range(1, depth + 1)) in found
    assert any(len(learning) < depth for learning in found) or depth == 1


@pytest.mark.parametrize("depth", [1, 2, 4, 7])
def test_parallel_needs_the_ticks_up_and_down(depth):
    for ticks in range(1, 2 * depth + 1):
        assert dp.Parallel(ticks).learning(depth) == {k for k in range(1, depth + 1) if 2 * depth - k <= ticks}


@pytest.mark.parametrize(("rounds", "lazy"), WAYS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drawn_orders_are_judged_by_their_best_draw(depth, rounds, lazy):
    """All orders of T updates, tried one by one."""
    for updates in range(1, depth + 1):
        layers = [torch.tensor(range(1, depth + 1))] * (updates if lazy else updates * rounds)
        orders = torch.cartesian_prod(*layers).view(-1, len(layers)).tolist()
        best = set().union(*(dp.Random(order).learning(depth, lazy=lazy) for order in orders))
        if lazy:
            best = set(range(1, depth + 1))  # whatever one batch does not draw, others do
        assert dp.Random(updates).learning(depth, rounds, lazy) == best


@pytest.mark.parametrize(
    ("schedule", "depth"),
    [(dp.Parallel(3), 4), (dp.Random([1, 2, 3]), 4), (dp.Random(1), 2), (Listed(), 2), (Listed(((2,), False)), 2)],
    ids=["parallel", "order", "draws", "nothing", "unnudged"],
)
def test_a_schedule_in_which_nothing_can_learn_is_refused(schedule, depth):
    with pytest.raises(dp.DualpropError, match=f"^schedule=.*none of the net's {depth} layers can learn"):
        dp.DualProp(double_net((3,) * (depth + 1)), schedule=schedule)


@pytest.mark.parametrize(
    ("schedule", "layers"),
    [
        (dp.Parallel(5), "layers 1, 2 of 4"),
        ("parallel:6", "layer 1 of 4"),
        ("random:[1,2,3,4,3]", "layers 1, 2 of 4"),
        (dp.Random([2, 3, 4, 3, 2]), "layers 1, 2 of 4"),  # nothing comes up from layer 1
        (dp.Random(3), "layers 1, 2 of 4"),  # and the others will hardly
        ("random:2", "layers 1, 2, 3 of 4"),
    ],
    ids=str,
)
def test_layers_that_cannot_learn_are_named_once(schedule, layers):
    net = double_net((3,) * 5)
    with pytest.warns(UserWarning, match=f"^schedule=.*: {layers} cannot learn") as caught:
        rule = dp.DualProp(net, schedule=schedule)
    assert len(caught) == 1
    idle = {int(k) for k in layers.split(" of ")[0].split(" ", 1)[1].split(",")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient = gradient_of(rule, *double_batch(2, 3, 3))
    zero = {k for k in range(1, 5) if not gradient[f"layers.{k - 1}.synapse.weight"].any()}
    assert zero >= idle
    assert zero == idle or isinstance(rule.schedule.order, int)  # a draw may be worse than the best


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "sweep"},
        {"schedule": "parallel"},
        {"schedule": "parallel:7"},
        {"schedule": "random:32"},
        {"schedule": "random:[1,2,3,4,3,2,1]"},
        {"schedule": "parallel:1", "lazy": True},
        {"schedule": "random:[4,3,2,1]", "lazy": True},
        {"schedule": "random:1", "lazy": True},
        {"schedule": "random:[1,2,3,4]", "rounds": 4},
        {"schedule": "random:16", "rounds": 2},
    ],
    ids=str,
)
def test_where_every_layer_can_learn_nothing_is_said(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dp.DualProp(double_net((3,) * 5), **settings)


def test_one_tick_a_sample_is_enough_for_a_lazy_rule():
    """Activity reaches layer 4 in tick 4, on the fourth sample; the nudge layer 1 in the seventh."""
    net = double_net((3,) * 5)
    rule = dp.DualProp(net, schedule=dp.Parallel(1), lazy=True)
    x, y = double_batch(2, 3, 3)
    for tick in range(1, 12):
        gradient = gradient_of(rule, x, y)
        learning = {k for k in range(1, 5) if gradient[f"layers.{k - 1}.synapse.weight"].any()}
        assert learning == {k for k in range(1, 5) if 8 - k <= tick}


def test_ages_are_kept_with_the_states():
    net = double_net((3,) * 5)
    rule, other = (dp.DualProp(net, schedule=dp.Parallel(2), lazy=True) for _ in range(2))
    x, y = double_batch(3, 3, 3)
    rule.backward(x, y)
    rule.backward(x[:2], y[:2])
    assert rule.state_dict()["ages"] == [4, 4, 2]
    other.load_state_dict(rule.state_dict())
    ours, theirs = (gradient_of(r, x[:2], y[:2]) for r in (rule, other))
    assert ours["layers.3.synapse.weight"].any()
    assert all(torch.equal(gradient, theirs[name]) for name, gradient in ours.items())
    with pytest.raises(dp.DualpropError, match=r"^state: ages"):
        other.load_state_dict({**rule.state_dict(), "ages": [0.5]})


# A user's own schedule


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ((0,), "names layer 0, but the net's layers are 1..3"),
        ((4,), "names layer 4, but the net's layers are 1..3"),
        ((-1,), "names layer -1,"),
        ((1.0,), r"names layer 1\.0,"),
        (("1",), "names layer '1',"),
        ((True,), "names layer True,"),
        ((1, 2, 1), "names layer 1 twice"),
        (1, r"yields .*must be an Update\(layers, nudged\)"),
    ],
    ids=str,
)
def test_wrong_layers_are_one_clear_line(layers, match):
    class Mine(Listed):
        pass

    with pytest.raises(dp.DualpropError, match=f"^schedule=.*Mine.*: {match}") as caught:
        dp.DualProp(double_net((3,) * 4), schedule=Mine(((1,),), (layers,)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("update", [3, None, (1, 2, 3), ((1,), 1)], ids=str)
def test_things_that_are_no_updates(update):
    schedule = Listed()
    schedule.listed = [update]
    with pytest.raises(dp.DualpropError, match=r"^schedule=.*(must be an Update|must be true or false)"):
        dp.DualProp(double_net((3,) * 4), schedule=schedule)


def test_a_layer_that_comes_up_later_only():
    class Later(dp.Schedule):
        """Wrong from the second batch on."""

        def updates(self, depth, generator):
            layer = int(torch.randint(1, 10, (), generator=generator))
            yield from (Update((k,)) for k in (*range(1, depth), layer))

    rule = dp.DualProp(double_net((3,) * 10), schedule=Later())
    rule.schedule.updates = lambda depth, generator: iter([Update((12,))])
    with pytest.raises(dp.DualpropError, match=r"layer 12, but the net's layers are 1\.\.9"):
        rule.backward(*double_batch(2, 3, 3))


@pytest.mark.slow
def test_an_endless_schedule_is_refused():
    class Endless(dp.Schedule):
        def updates(self, depth, generator):
            while True:
                yield Update((1,))

    with pytest.raises(dp.DualpropError, match=r"Endless.*more than 1,000,000 updates"):
        dp.DualProp(double_net((3,) * 4), schedule=Endless())


def test_a_schedule_of_one_s_own_has_no_word():
    with pytest.raises(dp.DualpropError, match=r"Listed.*has no word"):
        _ = Listed().word


def learning_often(depth: int, updates: int, batches: int = 400) -> set[int]:
    """The layers of a chain for which 1, .., L, .., k come in this order in most of so many drawn orders."""
    draw, counts = random.Random(0), dict.fromkeys(range(1, depth + 1), 0)
    for _ in range(batches):
        wanted = [*range(1, depth + 1), *range(depth - 1, 0, -1)]
        for _ in range(updates):
            if wanted and draw.randint(1, depth) == wanted[0]:
                done = wanted.pop(0)
                counts[done] += len(wanted) < depth  # on its way down, or at the top
    return {k for k, count in counts.items() if count > batches / 2}


@pytest.mark.parametrize("depth", [2, 3, 4, 7])
def test_with_twice_the_square_of_the_depth_every_layer_learns_on_most_batches(depth):
    enough = 2 * depth**2
    assert dp.Random(enough).seldom(depth) == {}
    assert learning_often(depth, enough) == set(range(1, depth + 1))
    half = enough // 2
    unnamed = set(range(1, depth + 1)) - set(dp.Random(half).seldom(depth))
    assert 1 not in learning_often(depth, half) >= unnamed


@pytest.mark.parametrize(
    ("depth", "settings", "said"),
    [
        (4, {"schedule": "random:31"}, "layer 1 of 4 will hardly learn: draw 32 updates"),
        (4, {"schedule": "random:15", "rounds": 2}, "layer 1 of 4 will hardly learn: draw 16 updates"),
        (4, {"schedule": "random:3"}, "layers 3, 4 of 4 will hardly learn: draw 32 updates"),
        (9, {"schedule": "random:100"}, "layers 1, 2, 3, 4, 5, 6, 7 of 9 will hardly learn: draw 162 updates"),
    ],
)
def test_layers_that_will_hardly_learn_are_named_once(depth, settings, said):
    net = double_net((2,) * (depth + 1))
    with pytest.warns(UserWarning, match=f"^schedule=Random.*{said}$") as caught:
        dp.DualProp(net, **settings)
    assert len(caught) == 1


def test_of_a_graph_the_longest_ways_count():
    """x - a - b - (+ a) c - d, an output at b as well, a branch x - e - d, an edge back from d to a."""
    g = dp.Graph()
    x = g.input("x")
    a = g.layer("a", {x: dp.Dense(3, 3)})
    b = g.layer("b", {a: dp.Dense(3, 3)})
    c = g.layer("c", {b: dp.Dense(3, 3), a: dp.Identity()})
    e = g.layer("e", {x: dp.Dense(3, 3)})
    d = g.layer("d", {c: dp.Dense(3, 3), e: dp.Dense(3, 3)}, "linear")
    g.connect(d, a, dp.Dense(3, 3))
    wiring = g.net([d]).wiring
    assert updates_to_learn(wiring) == {1: 7, 2: 6, 3: 5, 4: 5, 5: 4}
    assert updates_to_learn(g.net([b, d]).wiring) == {1: 3, 2: 2, 3: 5, 4: 5, 5: 4}
    with pytest.warns(UserWarning, match=r": layers 1 \(a\), 2 \(b\) of 5 will hardly learn: draw 40 updates$"):
        dp.Random(30).fit(wiring)


def test_the_published_number_of_updates_is_enough_for_the_published_net():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dp.RULES["r-dp"](dp.nets.mlp([784, 10, 10, 10, 10]))
