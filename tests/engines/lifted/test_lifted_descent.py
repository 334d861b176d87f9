"""The descent of LiftedProximal: that it descends, when it stops, what it counts, what it refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import dualprop as dp
from dualprop.engines.lifted.descent import Descent
from dualprop.engines.lifted.objective import Lifted
from tests.oracles.builders import (
    double_batch,
    double_net,
    gradient_of,
    image_batch,
    relative_error,
    small_conv_net,
)
from tests.oracles.refused import refused


def problem(activation="tanh", sizes=(6, 8, 7, 4), n=5, seed=0):
    net = double_net(sizes, activation, seed=seed)
    x, y = double_batch(n, sizes[0], sizes[-1], seed=seed)
    return net, x, F.one_hot(y, sizes[-1]).to(x)


def descend(net, x, y, *, loss="mse", alpha=1, beta=0.1, tolerance=1e-6, max_iterations=500, watch=None):
    lifted = Lifted(net, [dp.LOSSES[loss]], 1.0 if alpha else -1.0, [beta] * len(net), x)
    with torch.no_grad():
        return Descent(lifted, tolerance, max_iterations, watch).run({0: x}, [y]), lifted


class Journal:
    """Every step that was tried, sample by sample."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, bool, float, float, float]] = []

    def __call__(self, rows, taken, point, trial) -> None:
        columns = rows, taken, point.objective, trial.objective, point.rounding
        self.steps.extend(zip(*(c.tolist() for c in columns), strict=True))

    def path(self, row: int) -> list[float]:
        """The objective of one sample from accepted step to accepted step."""
        steps = [s for s in self.steps if s[0] == row]
        return [steps[0][2], *(s[3] for s in steps if s[1])]


@pytest.mark.parametrize("beta", [0.05, 1.0, 5.0])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softmax", "leaky-relu", "hard-tanh"])
def test_the_objective_falls_at_every_accepted_step(activation, loss, beta):
    net, x, y = problem(activation)
    for alpha in (1, 0) if loss == "cross_entropy" else (1,):
        journal = Journal()
        minimum, _ = descend(net, x, y, loss=loss, alpha=alpha, beta=beta, tolerance=1e-3, watch=journal)
        assert float(minimum.residual.max()) < 1e-3
        for row in range(5):
            path = journal.path(row)
            assert len(path) > 1
            assert all(after < before for before, after in pairwise(path))
            assert path[-1] == float(minimum.objective[row])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_objective_falls_on_images_with_pools(activation):
    net, (x, y), journal = small_conv_net(activation), image_batch(5), Journal()
    minimum, _ = descend(net, x, F.one_hot(y, 3).to(x), beta=0.5, tolerance=1e-3, watch=journal)
    done = minimum.residual < 1e-3
    assert int(done.sum()) >= 4  # one may rest where two winners of a max-pool tie
    assert int(minimum.iterations.max()) < 100
    for row in range(5):
        path = journal.path(row)
        assert all(after < before + 1e-13 for before, after in pairwise(path))
        assert path[-1] < path[0] - 1e-3


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_within_rounding_the_objective_never_rises_by_more_than_that(activation):
    net, x, y = problem(activation)
    journal = Journal()
    minimum, _ = descend(net, x, y, beta=0.3, tolerance=1e-13, watch=journal)
    rises = [after - before - rounding for _, taken, before, after, rounding in journal.steps if taken]
    assert max(rises) <= 0
    assert max(rounding for *_, rounding in journal.steps) < 1e-12
    assert float(minimum.residual.max()) < 1e-9
    assert int(minimum.iterations.max()) < 500  # it sees for itself that no step descends any more


@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softmax"])
def test_another_sweep_of_block_updates_moves_less_than_the_tolerance(activation, loss, alpha):
    """z_k = f(a_k + r_k A^T (f(a_{k+1} + e_{k+1}) - f(a_{k+1}))) from the top down, written out."""
    net, x, y = problem(activation)
    beta, tolerance = (0.05, 0.08, 0.06), 1e-4
    sign, nudge = (1 if alpha else -1), None
    rule = dp.LiftedProximal(net, loss=loss, alpha=alpha, beta=beta, tolerance=tolerance)
    state = rule.infer(x, y)
    z = state.plus if alpha else state.minus
    with torch.no_grad():
        for k in (3, 2, 1):
            f = net.chain[k - 1].potential
            a = net.chain[k - 1].synapse(z[k - 1])
            if k == 3:
                nudge = -sign * beta[2] * (z[3] - y if loss == "mse" else z[3].softmax(1) - y)
            else:
                nudge = beta[k - 1] / beta[k] * nudge @ net.chain[k].synapse.weight
            moved = (f(a + nudge) - z[k]).norm(dim=1) / (z[k] - f(a)).norm(dim=1)
            assert float(moved.max()) < 1.1 * tolerance  # to first order in what is left
            nudge = f(a + nudge) - f(a)
    assert rule.backward(x, y).measures["residual"] <= tolerance


def test_iterations_grow_with_beta():
    """Few for weak nudges, where one sweep is nearly the solution."""
    for activation in ("relu", "tanh"):
        net, x, y = problem(activation, (20, 32, 32, 32, 5), 20)
        betas = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        counts = [
            dp.LiftedProximal(net, beta=b, max_iterations=500).backward(x, y).measures["iterations"] for b in betas
        ]
        assert counts == sorted(counts)
        assert counts[0] < 4
        assert counts[-1] > 5 * counts[0]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_the_error_of_the_gradient_is_about_the_tolerance(tolerance):
    net, x, y = problem("relu", (6, 16, 16, 4), 20)
    for beta in (0.01, 0.1, 0.5):
        exact, ours = (
            gradient_of(dp.LiftedProximal(net, beta=beta, tolerance=t, max_iterations=500), x, y)
            for t in (1e-11, tolerance)
        )
        assert 0 < relative_error(ours, exact) < 3 * tolerance


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("alpha", [1, 0])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softmax"])
def test_the_slope_is_the_derivative_of_the_objective_along_the_step(activation, alpha, apart):
    """For all layers together, and for every z_k by itself with the drives held."""
    net, x, y = problem(activation)
    lifted = Lifted(net, [dp.LOSSES["mse"]], 1.0 if alpha else -1.0, (0.3, 0.5, 0.4), x)
    mask = torch.full((5,), apart)
    with torch.no_grad():
        first = lifted.rest({0: x})
        noise = [0.3 * torch.randn(5, n, dtype=x.dtype) for n in (8, 7, 4)]
        here = lifted.at(first, [y], lambda k, _: noise[k - 1], mask)
        up, down = (
            lifted.at(first, [y], here.along(torch.full((5,), h, dtype=x.dtype), mask), mask)
            for h in (1e-6, -1e-6)
        )
    assert float(here.slope.max()) < -1e-2
    torch.testing.assert_close((up.objective - down.objective) / 2e-6, here.slope, rtol=1e-6, atol=1e-7)


def test_every_sample_descends_by_itself():
    net, x, y = problem("relu", n=12)
    together, _ = descend(net, x, y, beta=0.5)
    assert len(set(together.iterations.tolist())) > 1
    for row in range(12):
        alone, _ = descend(net, x[row : row + 1], y[row : row + 1], beta=0.5)
        assert int(alone.iterations) == int(together.iterations[row])
        assert float(alone.objective) == pytest.approx(float(together.objective[row]), rel=1e-12)
        assert float(alone.residual) == pytest.approx(float(together.residual[row]), rel=1e-6)
        for ours, theirs in zip(alone.levels, together.levels, strict=True):
            torch.testing.assert_close(ours.state[0], theirs.state[row], rtol=1e-10, atol=1e-12)


def test_the_products_are_those_of_the_passes_up_and_down():
    """One from the input; then two for every other synapse a step and at the start, and one at the end."""
    for sizes in ((6, 4), (6, 8, 4), (6, 8, 7, 4)):
        net, x, y = problem("tanh", sizes)
        step = dp.LiftedProximal(net, beta=0.3).backward(x, y)
        tried = step.measures["most_iterations"]
        assert tried >= 2
        assert step.products == 1 + (len(sizes) - 2) * (2 * (tried + 1) + 1)


def test_it_stops_after_max_iterations_and_says_what_is_left():
    net, x, y = problem()
    reports = [
        dp.LiftedProximal(net, beta=1.0, tolerance=1e-6, max_iterations=n).backward(x, y).measures
        for n in (1, 2, 500)
    ]
    assert [r["iterations"] for r in reports[:2]] == [1.0, 2.0]
    assert [r["most_iterations"] for r in reports[:2]] == [1.0, 2.0]
    assert reports[0]["residual"] > reports[1]["residual"] > 1e-6 > reports[2]["residual"]
    assert reports[0]["objective"] > reports[1]["objective"] > reports[2]["objective"]


def kinked_net() -> tuple[dp.Net, Tensor, Tensor]:
    """Four ReLUs exactly at their kink.

    The slope, with a derivative of 0 there, promises a fall, but for every θ these neurons rise against a target
    that wants them low.
    """
    net = dp.Net(
        [dp.Layer(dp.Dense(1, 1), "linear"), dp.Layer(dp.Dense(1, 5)), dp.Layer(dp.Dense(5, 2), "linear")]
    )
    first, second, third = (layer.synapse for layer in net.chain)
    with torch.no_grad():
        first.weight.fill_(1.0)
        second.weight.copy_(torch.tensor([[4.0]] * 4 + [[1.0]]))
        second.bias.copy_(torch.tensor([-4.0] * 4 + [0.0]))
        third.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0, 0.0]]))
    one = torch.ones(1, 1, dtype=torch.float64)
    return net.double(), one, torch.tensor([[2.0, -2.0]], dtype=torch.float64)


def test_at_a_kink_every_state_moves_by_itself_and_the_objective_still_falls():
    net, x, y = kinked_net()
    journal = Journal()
    minimum, _ = descend(net, x, y, beta=1.0, tolerance=1e-8, watch=journal)
    assert not any(taken for _, taken, *_ in journal.steps[:11])  # no θ would do
    path = journal.path(0)
    assert all(after <= before for before, after in pairwise(path))
    assert path[-1] < path[0] - 1
    assert float(minimum.residual) < 1e-8
    # the minimiser, by hand: z = (p, (0, 0, 0, 0, q), (r, -1)), all of it quadratic but for 4 ReLUs' ½(4p - 4)²
    p, q, r = (float(level.state[0, -1 if k == 1 else 0]) for k, level in enumerate(minimum.levels))
    expected = torch.linalg.solve(
        torch.tensor([[1 + 64 + 1, -1, 0], [-1, 2, -1], [0, -1, 2]], dtype=x.dtype),
        torch.tensor([1 + 64, 0, 2], dtype=x.dtype),
    )
    assert [p, q, r] == pytest.approx(expected.tolist(), abs=1e-7)
    assert float(minimum.levels[1].state[0, :4].abs().max()) == 0


@pytest.mark.parametrize("beta", [0.03, 0.3, 1.0])
def test_in_bfloat16_it_goes_as_far_as_rounding_allows_and_stops(beta):
    generator = torch.Generator().manual_seed(0)
    net = dp.nets.mlp([20, 32, 32, 32, 5], generator=generator)
    x, y = torch.randn(64, 20, generator=generator), torch.randint(5, (64,), generator=generator)
    rule = dp.LiftedProximal(net, beta=beta, tolerance=1e-6, max_iterations=1000)
    full = rule.backward(x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = rule.backward(x, y)
    assert half.measures["most_iterations"] < 200
    assert half.measures["residual"] < 0.1
    assert half.measures["objective"] == pytest.approx(full.measures["objective"], rel=0.01)
    assert half.measures["objective"] < float(half.loss)


BAD = {
    "alpha": (0.5, -1, 2, True, "1", None),
    "beta": (0, 0.0, -0.1, float("inf"), float("nan"), "x", [0.1], [0.1, 0.1, 0.1], [0.1, -1], []),
    "tolerance": (0, -1e-3, float("nan"), float("inf"), "x", None, True),
    "max_iterations": (0, -1, 1.5, "x", None, True),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_a_bad_setting_is_one_line(name, value):
    with refused(rf"^{name}="):
        dp.LiftedProximal(dp.nets.mlp([6, 8, 4]), **{name: value})


def test_a_net_that_it_cannot_descend_on_is_one_line():
    own = dp.nets.mlp([6, 8, 4], feedback="kolen-pollack")
    flat = dp.nets.mlp([6, 8, 4], "holo-tanh")
    for net, settings, message in (
        (own, {}, r"^net: .*kolen-pollack.*symmetric"),
        (flat, {}, r"^net: layer 1.*HoloTanh.*not convex"),
        (dp.nets.mlp([6, 8, 4]), {"alpha": 0, "beta": 1.0}, r"^beta: .*below 1"),
        (dp.nets.mlp([6, 8, 4], output="softmax"), {"loss": "cross_entropy"}, r"^loss='cross_entropy'"),
    ):
        with refused(message):
            dp.LiftedProximal(net, **settings)
