"""What somebody who uses the library writes, for checkers of types alone; `test_packaging.py` runs one on it.

A line that ends in "wrong" is one, and has to be found: so what stands there is not `Any`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import dualprop as dp

x, y = torch.randn(5, 4), torch.arange(5) % 3

net: dp.Net = dp.nets.mlp([4, 8, 3])
rule = dp.DualProp(net, loss="mse", alpha=0.5, beta=1.0, schedule=dp.Sweep())
step: dp.Step = rule.backward(x, y)
loss: Tensor = step.loss
loss_is_float: float = step.loss  # wrong
steps: Iterator[dp.Step] = rule.iterate(x, y)
state: dp.State = rule.infer(x, y)
plus: Tensor = rule.infer(x, y).plus[1]
text: str = rule.infer(x, y)  # wrong
cosine: tuple[float, ...] | None = dp.alignment(rule, x, y).cosine
named: dp.Rule = dp.RULES["ep"](net, loss="mse", T1=5)
named_is_int: int = dp.RULES["ep"](net)  # wrong
with dp.counting() as counts:
    rule.backward(x, y)
products: int = counts.total.products

noise = dp.devices.Noise(0.1)
noisy = dp.DualProp(
    net, states=noise, weights=[dp.devices.Clipped((-1, 1)), dp.devices.Quantised(4)], device_seed=1
)
hep = dp.HolomorphicEP(net, T1=5, states=noise, drives={1: noise, 2: [noise]}, feedback_signal={"layer2": noise})
chl = dp.ContrastiveHebbian(net, weights={"channel": "noise", "sigma": 0.1}, feedback_weights=None)
bp = dp.Backprop(net, states=noise, device_seed=2)
dp.DualProp(net, states=0.1)  # wrong
dp.DualProp(net, stats=noise)  # wrong
dp.Backprop(net, device_seed="one")  # wrong

g = dp.Graph()
inputs = g.input("x")
hidden = g.layer("h", {inputs: dp.Dense(4, 8)}, "tanh")
output = g.layer("y", {hidden: dp.Local(nn.Linear(8, 3)), inputs: dp.Dense(4, 3, bias=False)}, "linear")
g.connect(hidden, hidden, dp.Dense(8, 8))
graph: dp.Net = g.net(outputs=[output])
unlike: str = g.net(outputs=[output])  # wrong

model: nn.Sequential = dp.convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), beta=1.0)
other: nn.Linear = dp.convert(nn.Sequential(nn.Linear(4, 8)))  # wrong
found: dp.Conversion = dp.conversion(model)
of_model = dp.alignment(model, nn.functional.cross_entropy, x, y)
by_name: dict[str, float] = of_model.cosine
by_layer: dict[str, float] = dp.alignment(rule, x, y).cosine  # wrong
dp.alignment(model, x, y)  # wrong
dp.alignment(rule, nn.functional.cross_entropy, x, y)  # wrong
with dp.scaled_loss(times=2.0):
    model(x)
plain: nn.Sequential = dp.unconvert(model)

digits = dp.data.load("digits")
for images, labels in dp.data.Batches(digits.train, 100, seed=0):
    shape: torch.Size = images.shape
    labels_are_ints: list[int] = labels  # wrong

settings = dp.Settings(rule="dp", hidden=(8,), epochs=2)
result: dp.Result = dp.train(settings, "runs/mine", data=(x, y), progress=False)
accuracy: float | None = result.test_accuracy
accuracy_is_float: float = result.test_accuracy  # wrong
settings_of_words = dp.Settings(rule="dp", hidden="8")  # wrong
again: dp.Result = dp.resume("runs/mine", {"epochs": 3}, data=(x, y))
loaded: dp.Net = dp.load_net("runs/mine")
loaded_is_int: int = dp.load_net("runs/mine")  # wrong
dp.compare(["bp", "dp"], [0, 1], {"hidden": (8,)}, "runs/both", data=(x, y))

learner = dp.stream.Learner(net, loss="cross_entropy", beta=0.1)
tick = learner.tick(x[0], y=1)
frame: int | None = tick.frame
frame_is_str: str = tick.frame  # wrong
carrier = dp.distributed.Simulated(loss=0.1)
crowd: dp.Result = dp.distributed.train(settings, "runs/crowd", workers=2, carrier=carrier)
crowd_is_str: str = dp.distributed.train(settings, "runs/crowd")  # wrong


class Mine(dp.Rule):
    def update(self, x: Tensor, y: Tensor) -> dp.Step:
        return dp.Step(self.loss.value(self.net(x), y).mean(), self.net(x))


class Shrink(dp.Potential):
    elementwise = True

    def __call__(self, a: Tensor) -> Tensor:
        return nn.functional.softshrink(a, 0.1)

    def energy(self, z: Tensor) -> Tensor:
        return (0.5 * z**2 + 0.1 * z.abs()).flatten(1).sum(1)

    def conjugate(self, a: Tensor) -> Tensor:
        return (0.5 * self(a) ** 2).flatten(1).sum(1)


class Watched(dp.Callback):
    def epoch(self, trainer: dp.Trainer) -> None:
        print(trainer.epoch, trainer.numbers["loss"])


dp.RULES["mine"] = dp.Method(Mine, "mine")
dp.RULES["wrong"] = Mine  # wrong
dp.POTENTIALS["shrink"] = Shrink()
dp.Trainer(net, Mine(net), torch.optim.SGD(net.parameters(), 0.1), [(x, y)], [Watched()]).fit(1)

figures = [dp.plot_dyads(state), dp.plot_alignment({"a rule": dp.alignment(rule, x, y), "a model": of_model})]
closeness: tuple[float, ...] = dp.feedback_cosines(net)
potentials: dict[str, dp.Potential] = dp.POTENTIALS
potential_is_word: str = dp.POTENTIALS["tanh"]  # wrong
order: dp.Schedule = dp.Order([2, [1, 3]], 4)
with dp.devices.Trace(net) as trace:
    rule.backward(x, y)
pulsed = dp.devices.PulsedSGD(net.parameters(), lr=0.1, device="EcRam")
recipe: dp.Settings = dp.recipes.load("mnist-mlp", rule="dp")
recipe_is_rule: dp.Rule = dp.recipes.load("mnist-mlp")  # wrong
report = dp.resume_comparison("runs/both", data=(x, y))
table: str = report.markdown()
