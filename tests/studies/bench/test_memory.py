"""The peak of work whose allocations are known."""

import pytest
import torch

from dualprop.nets.kernels import arena
from dualprop.studies.bench.memory import peak_bytes
from dualprop.studies.bench.subjects import subjects
from dualprop.studies.bench.workload import Workload

CPU = torch.device("cpu")


def test_what_is_held_at_once():
    def work():
        a = torch.empty(1000)
        b = torch.empty(2000)
        del a
        c = torch.empty(500)
        return b, c

    assert peak_bytes(work, work, CPU) == 4 * 3000


def test_what_was_there_before_is_not_counted():
    kept = [torch.empty(1000)]

    def work():
        kept.clear()
        kept.append(torch.empty(1500))

    assert peak_bytes(work, work, CPU) == 0  # 1500 floats, 1500 again


def test_what_is_kept_from_the_first_time_to_the_second_is_counted():
    kept = []

    def work():
        if not kept:
            kept.append(torch.empty(1000))
        return torch.empty(500)

    assert peak_bytes(lambda: None, work, CPU) == 4 * 1500


def test_memory_that_is_used_again_is_counted(monkeypatch):
    """A large layer whose states are put where those of the batch before were: a new rule has nowhere yet."""
    peaks = []
    for least in (1, 2**62):
        monkeypatch.setattr(arena, "LEAST", least)
        subject = subjects()["dp"].make(Workload("mlp", 784, (300,) * 3, torch.float32, 500, CPU), False)
        for _ in range(3):
            subject.step()
        peaks.append(peak_bytes(subject.step, subject.afresh(), CPU))
    assert peaks[0] > 0.99 * peaks[1]


def test_a_device_without_records():
    assert peak_bytes(lambda: None, lambda: None, torch.device("meta")) is None


@pytest.mark.parametrize("rule", ["bp", "dp"])
def test_updates_at_once_save_gradients(rule):
    """Nine equal layers whose gradients are most of what a step holds: one is alive at a time, or two."""
    workload = Workload("mlp", 784, (256,) * 9, torch.float32, 2, CPU)
    late, at_once = (subjects()[name].make(workload, False) for name in (rule, f"{rule}-fused"))
    layer = 4 * 256 * 256
    assert late.gradient_bytes > 8 * layer
    for subject in (late, at_once):
        subject.step()  # the first makes the momentum
    saved = peak_bytes(late.step, late.afresh(), CPU) - peak_bytes(at_once.step, at_once.afresh(), CPU)
    assert saved > late.gradient_bytes - 5 * layer  # the first layer's weights are as many as three others'
