"""Energies on graphs: EP beside implicit differentiation and the dyads, CHL's limit, the energy's fall."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
from dualprop.engines.hopfield.copies import Copies
from dualprop.engines.hopfield.net import HopfieldNet
from dualprop.engines.hopfield.relaxation import ORDERS, Relaxation
from dualprop.rules.batch import in_order
from tests.oracles.builders import assert_same, double_batch, gradient_of, relative_error, slope
from tests.oracles.graph_nets import TIED, batch, named_net
from tests.oracles.hopfield_graph_twin import HopfieldGraph
from tests.oracles.refused import refused

SETTLED = {"T1": 3000, "T2": 3000, "tolerance": 1e-14}
GRAPHS = ("diamond", "skip", "two-inputs", "two-outputs", "ring", "tied-skip", "tied-outputs")


def energy_net(name: str) -> tuple[dp.Net, object, object]:
    """Smooth where there is a relu, and with weights small enough to settle."""
    net = named_net(name, scale=0.5, tolerance=1e-14)
    for layer in net.stack:
        if layer.potential == dp.POTENTIALS["relu"]:
            layer.potential = dp.POTENTIALS["sigmoid"]
    return net, *batch(net)


def truth(net: dp.Net, x: object, y: object, loss: str) -> dict[str, Tensor]:
    """By implicit differentiation of the twin's equilibrium."""
    shapes = net.state_shapes([tuple(each.shape[1:]) for each in in_order(x)])
    outputs = zip(net.wiring.outputs, in_order(y), strict=True)
    targets = [torch.eye(shapes[k][0], dtype=torch.float64)[t] for k, t in outputs]
    twin = HopfieldGraph(net, in_order(x), targets, [loss] * len(targets))
    return twin.true_gradient(twin.run(twin.zeros(), 150))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_error_falls_as_beta_or_as_its_square(name: str, loss: str) -> None:
    """And the rule's reference is that true gradient."""
    net, x, y = energy_net(name)
    true, betas = truth(net, x, y, loss), (0.02, 0.01, 0.005)
    for variant, order in (("positive", 1), ("negative", 1), ("centred", 2)):
        errors = [
            relative_error(
                dp.EquilibriumProp(net, loss=loss, variant=variant, beta=beta, **SETTLED).gradients(x, y), true
            )
            for beta in betas
        ]
        assert slope(betas, errors) == pytest.approx(order, abs=0.1), variant
    rule = dp.EquilibriumProp(net, loss=loss)
    own = dp.RecurrentBackprop.of_hopfield(net, rule.hopfield, loss=loss, tolerance=1e-13)
    assert_same(own.gradients(x, y), true, rtol=1e-9)
    for said, ours in zip(
        in_order(own.predict(x)), in_order(dp.EquilibriumProp(net, loss=loss, **SETTLED).predict(x)), strict=True
    ):
        torch.testing.assert_close(said, ours, rtol=0, atol=1e-11)


def symmetric_part(net: dp.Net, gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    """A loop's weights stay symmetric: its gradient by the energy is the symmetric part."""
    loops = [s for (j, k), s in zip(net.wiring.edges, net.synapses, strict=True) if j == k]
    names = [n for n, p in net.named_parameters() if any(p is s.weight for s in loops)]
    return {n: (g + g.mT) / 2 if n in names else g for n, g in gradient.items()}


@pytest.mark.parametrize("name", TIED)
def test_tied_graphs_are_the_dyads_at_twice_the_nudge(name: str) -> None:
    """With the exact step, both settled, states and gradients; and the prediction is the net's own fixed point."""
    net, x, y = energy_net(name)
    dyads = dp.DualProp(net, loss="mse", beta=0.2, schedule=dp.Sweep(3000, tolerance=1e-15))
    ep = dp.EquilibriumProp(net, loss="mse", variant="centred", beta=0.1, **SETTLED)
    state, expected = dyads.infer(x, y), ep.infer(x, y)
    for k in range(1, len(net) + 1):
        torch.testing.assert_close(state.plus[k], expected.plus[k], rtol=0, atol=1e-12)
        torch.testing.assert_close(state.minus[k], expected.minus[k], rtol=0, atol=1e-12)
    ours, theirs = gradient_of(ep, x, y), symmetric_part(net, gradient_of(dyads, x, y))
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-12)
    for said, fixed in zip(in_order(ep.predict(x)), in_order(net(x)), strict=True):
        torch.testing.assert_close(said, fixed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TIED)
def test_with_a_linearised_loss_they_agree_to_second_order(name: str) -> None:
    """So an output that drives other layers is a state for cross-entropy, too."""
    net, x, y = energy_net(name)
    betas, apart = (0.1, 0.05, 0.025), []
    for beta in betas:
        dyads = dp.DualProp(net, loss="cross_entropy", beta=beta, schedule=dp.Sweep(3000, tolerance=1e-15))
        ep = dp.EquilibriumProp(net, loss="cross_entropy", variant="centred", beta=beta / 2, **SETTLED)
        assert len(ep.hopfield.potentials) == len(net)
        apart.append(relative_error(symmetric_part(net, dyads.gradients(x, y)), ep.gradients(x, y)))
    assert slope(betas, apart) == pytest.approx(2, abs=0.1)
    for said, fixed in zip(in_order(ep.predict(x)), in_order(net(x)), strict=True):
        torch.testing.assert_close(said, fixed, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("name", ["diamond", "skip", "two-inputs", "shared-input", "outputs-out-of-order"])
def test_chl_is_back_propagation_to_first_order_in_the_gain(name: str, loss: str) -> None:
    """Whatever ways lead up: through a skip the feedback comes with the gain of all levels between."""
    net, x, y = energy_net(name)
    if name == "outputs-out-of-order":
        net.stack[1].potential = dp.POTENTIALS["linear"]
    true, gammas = dp.Backprop(net, loss=loss).gradients(x, y), (1e-2, 5e-3, 2.5e-3)
    nudge = {"beta": 1e-4}  # squared error and soft-max are curved
    errors = [
        relative_error(dp.ContrastiveHebbian(net, loss=loss, gamma=g, **nudge, **SETTLED).gradients(x, y), true)
        for g in gammas
    ]
    assert slope(gammas, errors) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("order", ["even-odd", "forward", "backward"])
@pytest.mark.parametrize("name", ["diamond", "skip", "two-outputs", "ring", "tied", "tied-outputs", "merge"])
def test_the_energy_falls_in_every_order_that_is_not_synchronous(name: str, order: str) -> None:
    """No group holds two layers that a term joins."""
    net, x, _ = energy_net(name)
    for layer in net.stack:
        layer.potential = dp.POTENTIALS["sigmoid"]
    hopfield, inputs = HopfieldNet(net), net.inputs(x)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(8)
        start = {k: torch.full_like(z, 0.4) for k, z in hopfield.zeros(inputs).items()}
        groups = ORDERS[order](hopfield.neighbours)
        assert sorted(k for group in groups for k in group) == list(hopfield.potentials)
        assert not any(j in hopfield.neighbours[k] for group in groups for k in group for j in group)
        relaxing = Relaxation(hopfield, hopfield.drives(inputs), start, Copies(len(inputs[0]), 1), groups=groups)
        energies = [hopfield.energy({**inputs, **relaxing.z})]
        for _ in range(12):
            relaxing.step()
            energies.append(hopfield.energy({**inputs, **relaxing.z}))
    rises = torch.stack(energies[1:]) - torch.stack(energies[:-1])
    assert bool((rises <= 1e-12 * torch.stack(energies[1:]).abs()).all())
    assert bool((rises[0] < 0).all())


# --- what is refused ------------------------------------------------------------------------------------------


def chain(g: dp.Graph) -> list[object]:
    h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
    i = g.layer("i", {h: dp.Dense(5, 5)}, "tanh")
    return [h, i, g.layer("y", {i: dp.Dense(5, 3)}, "linear")]


def with_edge(source: int, target: int, make: object) -> dp.Net:
    g = dp.Graph()
    nodes = chain(g)
    g.connect(nodes[source], nodes[target], make(g, nodes))
    return g.net([nodes[-1]])


NOT_ENERGIES = {
    "free": (lambda: with_edge(1, 0, lambda g, n: dp.Dense(5, 5)), "h -> i: joins the same layers as i -> h"),
    "skew": (
        lambda: with_edge(1, 0, lambda g, n: dp.Transposed(g.edge(n[0], n[1]), scale=-1.0)),
        "i -> h: joins the same layers as h -> i",
    ),
    "loop": (lambda: with_edge(0, 0, lambda g, n: dp.Dense(5, 5)), "h -> h: a loop is a term of an energy only"),
    "module": (
        lambda: with_edge(0, 0, lambda g, n: dp.Local(nn.LayerNorm(5))),
        "h -> h: a loop is a term of an energy only",
    ),
}


@pytest.mark.parametrize("method", ["ep", "ep-centred", "hep", "chl"])
@pytest.mark.parametrize("name", NOT_ENERGIES)
def test_edges_that_are_no_terms_of_an_energy(name: str, method: str) -> None:
    make, message = NOT_ENERGIES[name]
    with refused(f"^net: edge ({message}|i -> h: joins the same layers as h -> i)"):
        dp.RULES[method](make())


def test_a_transpose_that_is_there_twice_ties_nothing() -> None:
    g = dp.Graph()
    nodes = chain(g)
    for _ in range(2):
        g.connect(nodes[1], nodes[0], dp.Transposed(g.edge(nodes[0], nodes[1])))
    with refused("^net: edge h -> i: joins the same layers as i -> h"):
        dp.EquilibriumProp(g.net([nodes[2]]))


def test_what_chl_cannot_run() -> None:
    with refused("^net: edge y -> h closes a cycle"):
        dp.ContrastiveHebbian(with_edge(2, 0, lambda g, n: dp.Dense(3, 5)))
    with refused("^net: edge o -> i: ContrastiveHebbian clamps outputs"):
        dp.ContrastiveHebbian(named_net("two-outputs"))
    dp.ContrastiveHebbian(named_net("tied-skip"))


def test_holomorphic_ep_needs_affine_edges() -> None:
    with refused("^net: edge h -> i: LayerNorm is no affine map"):
        g = dp.Graph()
        h = g.layer("h", {g.input("x"): dp.Dense(4, 5)}, "tanh")
        i = g.layer("i", {h: dp.Local(nn.LayerNorm(5))}, "tanh")
        dp.HolomorphicEP(g.net([g.layer("y", {i: dp.Dense(5, 3)}, "linear")]))


def test_logits_are_read_out_of_linear_layers_that_drive_nothing() -> None:
    with refused("^net: the last layer reads out logits for this loss, so o must be linear"):
        dp.EquilibriumProp(named_net("outputs-out-of-order"), loss="cross_entropy")
    assert not dp.EquilibriumProp(named_net("tied"), loss="cross_entropy").hopfield.readouts
    assert dp.EquilibriumProp(named_net("skip"), loss="cross_entropy").hopfield.readouts == {4}


def test_symmetric_loops() -> None:
    """Dense, convolutional in groups, or the identity."""
    dense, conv = dp.Dense(3, 3), dp.Conv2d(4, 4, 3, padding=1, groups=2)
    assert not dense.self_adjoint
    assert not conv.self_adjoint
    with torch.no_grad():
        dense.weight.copy_(dense.weight + dense.weight.T)
        for group in (slice(0, 2), slice(2, 4)):
            part = conv.weight[group].clone()
            conv.weight[group] = part + part.transpose(0, 1).flip(-1, -2)
    assert dense.self_adjoint
    assert conv.self_adjoint
    z, u = torch.randn(2, 2, 4, 5, 5)
    torch.testing.assert_close(conv.adjoint(u, z), conv(u) - conv(torch.zeros_like(u)))
    assert not dp.Dense(3, 4).self_adjoint
    assert dp.Identity().self_adjoint
    assert not dp.Identity(dp.AvgPool2d(2)).self_adjoint
    assert not dp.Local(nn.Linear(3, 3)).self_adjoint


def test_a_loops_weights_stay_symmetric() -> None:
    net, x, y = energy_net("tied-skip")
    rule, optimizer = dp.EquilibriumProp(net), torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        rule.backward(x, y)
        optimizer.step()
    assert net.stack[1].also["from_i"].self_adjoint
    dp.EquilibriumProp(net)


def test_kolen_pollack_weights_on_a_skip() -> None:
    """B of every edge lies on its way down, and learns what W learns."""
    g, own = dp.Graph(), {"feedback": "kolen-pollack"}
    h = g.layer("h", {g.input("x"): dp.Dense(6, 5)}, "tanh")
    i = g.layer("i", {h: dp.Dense(5, 4, **own)}, "tanh")
    net = g.net([g.layer("y", {i: dp.Dense(4, 3, **own), h: dp.Dense(5, 3, **own)}, "linear")]).double()
    x, y = double_batch(4, 6, 3)
    target, (A, B, C, D) = torch.eye(3).double()[y], net.synapses

    def settled(beta: float, z: list[Tensor]) -> list[Tensor]:
        h, i, o = z
        for _ in range(6):
            h, i, o = (
                torch.tanh(A(x) + i @ B.feedback + o @ D.feedback),
                torch.tanh(B(h) + o @ C.feedback),
                C(i) + D(h) - beta * (o - target),
            )
        return [h, i, o]

    with torch.no_grad():
        free = settled(0.0, [x.new_zeros(4, n) for n in (5, 4, 3)])
        nudged = settled(0.2, free)
    rule = dp.EquilibriumProp(net, loss="mse", beta=0.2, T1=6, T2=6, order="synchronous")
    gradient = gradient_of(rule, x, y)
    skip = -(nudged[2].T @ nudged[0] - free[2].T @ free[0]) / 0.2 / 4
    for name in ("weight", "feedback"):
        torch.testing.assert_close(gradient[f"layers.2.also.from_h.{name}"], skip, rtol=1e-11, atol=1e-13)
    assert rule.reference() is None


def test_a_weight_takes_its_gradient_once_whatever_edges_it_is_on() -> None:
    """So hooks see the whole: of a tied pair, of a loop, and of two edges that share one."""
    for name in ("tied-skip", "shared-weights"):
        net, x, y = energy_net(name)
        rule, seen = dp.EquilibriumProp(net), []
        expected = rule.gradients(x, y)
        for p in net.parameters():
            p.register_post_accumulate_grad_hook(lambda p, seen=seen: seen.append((p, p.grad.clone())))
        rule.backward(x, y)
        assert len(seen) == len(expected) == len({id(p) for p, _ in seen})
        names = {id(p): name for name, p in net.named_parameters()}
        assert_same({names[id(p)]: g for p, g in seen}, expected, rtol=1e-14)
