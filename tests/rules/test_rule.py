"""What the base class does for every rule: state that is declared once, checks, grad modes, and its `repr`."""

from __future__ import annotations

import io
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import dualprop as dp
from dualprop.runs.folder import Run
from tests.oracles.builders import double_batch, double_net, suited
from tests.rules.conformance import nothing_changes, parameters_of, tensors

SIZES = (5, 6, 4, 3)
BATCH = double_batch(4, 5, 3)


class Keeping(dp.Backprop):
    """Keeps one thing of every kind, and changes all of them at every update and inference."""

    def __init__(self, net: dp.Net, *, loss: dp.Loss | str = "mse", width: int = 3) -> None:
        super().__init__(net, loss=loss)
        self.add_state("trace", torch.zeros(width))
        self.add_state("count", 0)
        self.add_state("rate", 0.5)
        self.add_state("word", "a")
        self.add_state("generator", torch.Generator().manual_seed(0))
        module = nn.Linear(2, width)
        nn.init.constant_(module.weight, 0.25)
        nn.init.zeros_(module.bias)
        self.add_state("module", module)
        self.add_state("optimizers", [torch.optim.Adam(module.parameters(), lr=0.1)])
        self.add_state("parts", {"left": torch.ones(2, 2), "right": [1, 2.5]})

    def _change(self) -> None:
        self.trace = self.trace + torch.rand(len(self.trace), generator=self.generator)
        self.count += 1
        self.rate *= 0.5
        self.word += "b"
        for p in self.module.parameters():
            p.grad = torch.ones_like(p)
        self.optimizers[0].step()
        self.parts["left"].mul_(2)  # in place
        self.parts["right"][0] += 1

    def update(self, x: Tensor, y: Tensor) -> dp.Step:
        self._change()
        return super().update(x, y)

    def inference(self, x: Tensor, y: Tensor) -> dp.State:
        self._change()
        return super().inference(x, y)


def assert_equal_states(ours: dp.Rule, theirs: dp.Rule) -> None:
    ours, theirs = tensors(ours.state_dict()), tensors(theirs.state_dict())
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_every_kind_of_state_goes_through_a_file_and_on():
    net = double_net(SIZES)
    whole, resumed = Keeping(net), Keeping(net)
    fresh = tensors(whole.state_dict())
    for _ in range(3):
        whole.backward(*BATCH)
    changed = tensors(whole.state_dict())
    assert {at for at in fresh if not torch.equal(fresh[at], changed[at])} == {
        *(f"/{name}" for name in ("trace", "count", "rate", "word", "generator", "parts/left", "parts/right/0")),
        *("/module/weight", "/module/bias"),
    }
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_equal_states(resumed, whole)
    for rule in (whole, resumed):
        rule.backward(*BATCH)
    assert_equal_states(resumed, whole)


@pytest.mark.parametrize("name", [*dp.RULES, "keeping"])
def test_states_are_json_beside_their_tensors(name):
    """Plain containers: with every tensor taken out, what is left is the same after JSON."""
    method = dp.Method(Keeping, "") if name == "keeping" else dp.RULES[name]
    rule = method(double_net(SIZES, **suited(method)))
    rule.backward(*BATCH)

    def without_tensors(value: object) -> object:
        if isinstance(value, Tensor):
            return None
        if isinstance(value, dict):
            return {name: without_tensors(item) for name, item in value.items()}
        return [without_tensors(item) for item in value] if isinstance(value, list) else value

    plain = without_tensors(rule.state_dict())
    assert json.loads(json.dumps(plain)) == plain


def test_inference_gradients_and_prediction_leave_every_kind_of_state():
    rule = Keeping(double_net(SIZES))
    rule.backward(*BATCH)
    with nothing_changes(rule):
        rule.infer(*BATCH)
        rule.gradients(*BATCH)
        rule.predict(BATCH[0])


def test_what_an_update_that_fails_has_changed_is_put_back_by_gradients():
    class Failing(Keeping):
        def update(self, x, y):
            super().update(x, y)
            raise dp.DivergenceError("a state ran away")

    rule = Failing(double_net(SIZES))
    with nothing_changes(rule), pytest.raises(dp.DivergenceError):
        rule.gradients(*BATCH)


WRONG = {
    "trace": [torch.zeros(4), 3, None],
    "count": [1.5, "1", True],
    "word": [2],
    "rate": ["0.5", None],
    "generator": [torch.zeros(3, dtype=torch.uint8), None, "seed"],
    "module": [{}, {"weight": torch.zeros(3, 2)}, {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)}, None],
    "optimizers": [[], [{}], [{"state": {}, "param_groups": []}], None],
    "parts": [{"left": torch.ones(2, 2)}, {"left": torch.ones(2, 2), "right": [1]}, []],
}


@pytest.mark.parametrize(("name", "value"), [(name, v) for name, values in WRONG.items() for v in values])
def test_a_state_that_does_not_fit_is_one_line_and_changes_nothing(name, value):
    rule = Keeping(double_net(SIZES))
    rule.backward(*BATCH)
    others = Keeping(double_net(SIZES)).state_dict()  # everything else would change
    with nothing_changes(rule), pytest.raises(dp.DualpropError, match=rf"^state: {name}") as caught:
        rule.load_state_dict({**others, name: value})
    assert "\n" not in str(caught.value)


def test_a_number_may_have_become_whole_on_the_way():
    rule = Keeping(double_net(SIZES))
    rule.load_state_dict({**rule.state_dict(), "rate": 2})
    assert (rule.rate, type(rule.rate)) == (2.0, float)


def test_what_no_rule_can_keep():
    rule = dp.Backprop(double_net(SIZES))
    with pytest.raises(dp.DualpropError, match=r"^state: of type object, but a rule keeps tensors"):
        rule.add_state("thing", object())
    assert rule.state_dict() == {}


# Grad modes


def test_updates_run_without_a_graph_and_the_caller_between_them_in_its_own_mode():
    seen = []

    class Twice(dp.Backprop):
        def updates(self, x, y):
            for _ in range(2):
                seen.append(torch.is_grad_enabled())
                yield self.update(x, y)

        def inference(self, x, y):
            seen.append(torch.is_grad_enabled())
            return super().inference(x, y)

        def prediction(self, x):
            seen.append(torch.is_grad_enabled())
            return super().prediction(x)

    rule = Twice(double_net(SIZES))
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            for _ in rule.iterate(*BATCH):
                assert torch.is_grad_enabled() is mode
            rule.infer(*BATCH)
            rule.predict(BATCH[0])
    assert seen == [False] * 8


def test_a_rule_without_an_update_says_so():
    with pytest.raises(NotImplementedError, match="Empty implements neither update nor updates"):
        type("Empty", (dp.Rule,), {})(double_net(SIZES)).backward(*BATCH)


# Losses of one's own


class BatchMean(dp.Loss):
    holomorphic = True

    def value(self, z, y):
        return (z - y).square().mean()


class PerNeuron(dp.Loss):
    holomorphic = True

    def value(self, z, y):
        return (z - y).square()


@pytest.mark.parametrize("name", list(dp.RULES))
@pytest.mark.parametrize("loss", [BatchMean(), PerNeuron()], ids=lambda loss: type(loss).__name__)
def test_a_loss_that_is_not_one_number_a_sample(loss, name):
    method = dp.RULES[name]
    for n in (1, 4):
        rule = method(double_net(SIZES, **suited(method)), loss=loss)
        for act in (rule.backward, rule.infer, rule.gradients, rule.iterate):
            with nothing_changes(rule), pytest.raises(dp.DualpropError, match=r"^loss: .*\.value gives") as caught:
                act(*double_batch(n, 5, 3))
            assert "\n" not in str(caught.value)


# Rules that train some of the layers


class LastLayer(dp.Rule):
    """The gradient of the last layer alone."""

    def update(self, x, y):
        below = x
        for layer in self.net.chain[:-1]:
            below = layer(below)
        output = self.net(x)
        self.net.chain[-1].synapse.add_grad(self.loss.gradient(output, y) / len(x), below)
        return dp.Step(self.loss.value(output, y).mean(), output)


def test_layers_that_a_rule_does_not_train_have_no_angle():
    cosine, ratio = dp.alignment(LastLayer(double_net(SIZES)), *BATCH)
    assert [math.isnan(c) for c in cosine] == [math.isnan(r) for r in ratio] == [True, True, False]
    assert (cosine[2], ratio[2]) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize("fused", [False, True])
def test_a_rule_that_trains_some_layers_trains(quick, tmp_path, monkeypatch, fused):
    monkeypatch.setitem(dp.RULES, "last", dp.Method(LastLayer, "the last layer"))
    settings = replace(quick, rule="last", lr=0.03, alignment=True, fused_update=fused)
    result = dp.train(settings, tmp_path / "run")
    assert result.test_accuracy > 0.3
    epochs = [r for r in Run.open(tmp_path / "run").metrics() if r["kind"] == "epoch"]
    assert [math.isnan(c) for c in epochs[-1]["cosine"]] == [True, True, False]


# repr


def test_repr_shows_the_settings_that_are_not_the_defaults():
    net = double_net(SIZES)
    assert repr(dp.DualProp(net)) == "DualProp()"
    assert (
        repr(dp.DualProp(net, alpha=0.5, beta=0.1, schedule=dp.Sweep(2)))
        == "DualProp(beta=0.1, schedule=Sweep(n=2))"
    )
    assert repr(dp.RULES["ms-dp"](net, loss="cross_entropy")) == "DualProp(rounds=3, loss='cross_entropy')"
    assert repr(dp.Backprop(net=net, loss="mse")) == "Backprop()"
    assert repr(Keeping(net, width=2)) == "Keeping(width=2)"
    assert repr(dp.Backprop(net, loss=BatchMean())) == "Backprop(loss=BatchMean())"
    assert repr(pickle.loads(pickle.dumps(dp.DualProp(net, rounds=2)))) == "DualProp(rounds=2)"


@pytest.mark.parametrize("name", list(dp.RULES))
def test_every_rule_is_one_line(name):
    method = dp.RULES[name]
    rule = method(double_net(SIZES, **suited(method)))
    assert repr(rule).startswith(f"{method.rule.__name__}(")
    assert "\n" not in repr(rule)
    assert parameters_of(rule).keys() == dict(rule.net.named_parameters()).keys()
