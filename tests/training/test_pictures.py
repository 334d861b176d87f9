"""What a run keeps to be looked at: filters, states of one test image, shares of crossed kinks."""

import dataclasses

import pytest
import torch

import dualprop as dp
from dualprop.errors import CheckpointError
from dualprop.nets.potentials import Clip, LeakyReLU, Rescaled
from dualprop.runs.folder import Run
from dualprop.runs.pictures import LARGEST, PICTURES, ZERO, Pictures
from dualprop.training.callbacks.pictures import crossings, filters, states


def values(kept, name):
    return (kept.arrays[name].double() - ZERO) * kept.scales[name] / 127


def test_a_run_keeps_them_at_its_end_and_they_are_those_of_its_best_weights(quick, tmp_path):
    dp.train(dataclasses.replace(quick, epochs=1), tmp_path / "run", progress=False)
    kept, net = Pictures.read(Run.open(tmp_path / "run")), dp.load_net(tmp_path / "run")
    assert (tmp_path / "run" / PICTURES).stat().st_size <= LARGEST
    drawn = [name for name in kept.arrays if name.startswith("filters/")]
    for name in drawn:
        bound = kept.scales[name] / 254 + 1e-6
        weight = net.chain[0].synapse.weight[int(name.split("/")[1])].detach().reshape(1, 8, 8)
        torch.testing.assert_close(values(kept, name), weight.double(), atol=bound, rtol=0)
    assert len(drawn) == 24
    x, y = next(iter(dp.data.batched(dp.data.load("digits").test, 100)))
    state = dp.DualProp(net).infer(x, y)
    for k in range(1, len(net) + 1):
        for name, all_of_it in (("mean", state.mean[k][0]), ("difference", state.difference[k][0])):
            key = f"{name}/{k}"
            bound = kept.scales[key] / 254 + 1e-6
            torch.testing.assert_close(values(kept, key), all_of_it.double(), atol=bound, rtol=0)
    assert set(kept.numbers) == {"crossed/1", "crossed/2"}
    for k in (1, 2):  # of a ReLU: one of the two is off
        off = (state.plus[k] == 0) != (state.minus[k] == 0)
        assert kept.numbers[f"crossed/{k}"] == pytest.approx(float(off.double().mean()), abs=1e-6)
        assert 0 < kept.numbers[f"crossed/{k}"] < 1


@pytest.mark.parametrize("rule", list(dp.RULES))
def test_every_rule_has_states_to_show(rule):
    method = dp.RULES[rule]
    net = dp.nets.mlp([4, 6, 3], activation=method.activation, feedback=method.feedback)
    state = method(net).infer(torch.rand(5, 4), torch.arange(5) % 3)
    shown = dict(states(state))
    assert set(shown) == {f"{name}/{k}" for name in ("mean", "difference") for k in (1, 2)}
    assert torch.equal(shown["mean/1"], state.mean[1][0])
    assert all(0 <= share <= 1 for _, share in crossings(net, state))


def test_large_layers_and_deep_nets_stay_within_the_bounds():
    plus = tuple(torch.randn(2, *shape) for shape in [(3, 64, 64), *[(64, 56, 56)] * 40, (50, 600), (5000,)])
    shown = dict(states(dp.State(plus, tuple(torch.zeros_like(z) for z in plus))))
    assert sum(z.numel() for z in shown.values()) <= 50_000
    assert min(z.numel() for z in shown.values()) > 300
    assert shown["difference/1"].shape == (1, 19, 19)
    assert torch.equal(shown["difference/1"][0], plus[1][0, 0, ::3, ::3])
    assert torch.equal(shown["difference/42"], plus[42][0, :595])
    net = dp.nets.mlp([3 * 64 * 64, 40, 2])
    net.chain[0].synapse.weight.data[5:] *= 2
    found = dict(filters(net, torch.zeros(1, 3, 64, 64)))
    assert len(found) == 2
    assert all(int(name.split("/")[1]) >= 5 and image.shape == (3, 64, 64) for name, image in found.items())
    assert not dict(filters(net, torch.zeros(1, 3 * 64 * 64)))


def test_kinks_are_those_of_the_activation():
    low, high = torch.tensor([-2.0, -2.0, 0.5, 0.5, 2.0]), torch.tensor([-1.0, 0.5, 0.7, 2.0, 3.0])
    for potential, crossed in (
        ("relu", [0, 1, 0, 0, 0]),
        (LeakyReLU(0.1), [0, 1, 0, 0, 0]),
        (Clip(0, 1), [0, 1, 0, 1, 0]),
        (Rescaled(Clip(0, 1), slope=1.0, centre=0.6), [0, 0, 1, 1, 0]),
    ):
        f = dp.POTENTIALS[potential] if isinstance(potential, str) else potential
        assert (f.piece(f(low)) != f.piece(f(high))).int().tolist() == crossed
    for smooth in ("tanh", "linear", "sigmoid"):
        assert dp.POTENTIALS[smooth].piece(low) is None


def test_a_file_that_holds_anything_else_is_one_line(quick, tmp_path):
    dp.train(dataclasses.replace(quick, epochs=1), tmp_path / "run", progress=False)
    run = Run.open(tmp_path / "run")
    for arrays, notes, why in (
        ({"mean/1": torch.zeros(3)}, {"scale of mean/1": 1.0}, "no bytes"),
        ({"mean/1": torch.zeros(3, dtype=torch.uint8)}, {}, "scale of mean/1"),
        ({"mean/1": torch.zeros(3, dtype=torch.uint8)}, {"scale of mean/1": "<b>"}, "scale of mean/1"),
        ({"mean/1": torch.zeros(3, 1, 1, 1, dtype=torch.uint8)}, {"scale of mean/1": 1.0}, "no bytes"),
        ({"mean/1": torch.zeros(LARGEST, dtype=torch.uint8)}, {"scale of mean/1": 1.0}, "more than 100,000"),
    ):
        run.save_weights(PICTURES, arrays, **notes)
        with pytest.raises(CheckpointError, match=why) as error:
            Pictures.read(run)
        assert "\n" not in str(error.value)
    (run.path / PICTURES).write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        Pictures.read(run)
    (run.path / PICTURES).unlink()
    assert Pictures.read(run) is None
