"""What is timed is what it says: the same net, the same step."""

import pytest
import torch

import dualprop as dp
from dualprop.studies.bench.subjects import subjects
from dualprop.studies.bench.workload import Workload

CPU = torch.device("cpu")
NAMES = ["bp", "bp-rule", *(name for name in dp.RULES if name != "bp"), "convert", "bp-fused", "dp-fused"]


def test_every_rule_is_a_subject(monkeypatch):
    monkeypatch.setitem(dp.RULES, "toy", dp.Method(dp.Backprop, "a toy"))
    assert list(subjects()) == [*NAMES[:-3], "toy", *NAMES[-3:]]
    assert "a toy" in subjects()["toy"].summary


@pytest.mark.parametrize("name", ["mlp", "vgg_like", "hopfield_cnn"])
def test_the_plain_module_is_the_same_net(name):
    workload = Workload(name, 784, (9, 8), torch.float32, 2, CPU)
    net, plain = workload.net(dp.RULES["bp"]), workload.plain()
    assert [p.shape for p in net.parameters()] == [p.shape for p in plain.parameters()]
    with torch.no_grad():
        assert torch.allclose(net(workload.x), plain(workload.x), rtol=1e-4, atol=1e-5)


def test_images_are_channels_last():
    workload = Workload("vgg_like", 784, (), torch.float32, 2, CPU)
    assert workload.x.is_contiguous(memory_format=torch.channels_last)
    for weight in (next(workload.net(dp.RULES["bp"]).parameters()), next(workload.plain().parameters())):
        assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_learns_and_leaves_no_gradient(name, precision):
    workload = Workload("mlp", 784, (16, 12), precision, 6, CPU)
    subject = subjects()[name].make(workload, False)
    before = [p.clone() for p in subject.parameters]
    subject.step()
    assert all(p.grad is None for p in subject.parameters)
    assert not any(torch.equal(p, old) for p, old in zip(subject.parameters, before, strict=True))
    assert subject.gradient_bytes == 4 * sum(p.numel() for p in subject.parameters)


def after_steps(workload, name, steps):
    subject = subjects()[name].make(workload, False)
    for _ in range(steps):
        subject.step()
    return subject.parameters


@pytest.mark.parametrize(("one", "other"), [("bp", "bp-rule"), ("bp", "bp-fused"), ("dp", "dp-fused")])
def test_two_ways_to_the_same_weights(workload, one, other):
    pairs = zip(after_steps(workload, one, 2), after_steps(workload, other, 2), strict=True)
    assert all(torch.allclose(p, q, rtol=1e-6, atol=1e-9) for p, q in pairs)


@pytest.mark.parametrize("name", ["bp", "convert", "bp-rule"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_products_run_in_the_precision(monkeypatch, name, precision):
    linear, made = torch.nn.functional.linear, []

    def watched(*arguments):
        made.append(linear(*arguments))
        return made[-1]

    subject = subjects()[name].make(Workload("mlp", 784, (16,), precision, 6, CPU), False)
    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    subject.step()
    assert [z.dtype for z in made] == [precision] * 2
