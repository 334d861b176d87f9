"""What each of the processes does that `test_parallel` starts with torchrun: several runs in one folder."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from dualprop import resume, train
from dualprop.errors import DualpropError
from dualprop.runs.folder import ReadOnlyRun
from dualprop.runs.settings import Settings
from dualprop.training.interrupt import Interrupt
from dualprop.training.processes.group import join


def outcome(work):
    """The kind of error and its line, or the test accuracy."""
    try:
        return ["trained", work().test_accuracy]
    except DualpropError as error:
        return [type(error).__name__, str(error)]


def main(folder):
    processes = join()
    rank, outcomes = processes.rank, {}
    if rank == 1:  # what it would have written, to be compared

        def save(self, checkpoint):
            torch.save(checkpoint["net"], folder / f"{self.path.name}.of-process-1.pt")

        ReadOnlyRun.save = save
    cases = {
        name: Settings.from_dict(case) for name, case in json.loads((folder / "cases.json").read_text()).items()
    }
    for name, settings in cases.items():
        outcomes[name] = outcome(lambda: train(settings, folder / name))  # noqa: B023

    polls, original = iter(range(10_000)), Interrupt.__init__
    Interrupt.__init__ = lambda self: None
    Interrupt.asked = property(lambda self: rank == 1 and next(polls) == 5, lambda self, value: None)
    outcomes["stopped"] = outcome(lambda: train(cases["l-dp"], folder / "stopped"))
    outcomes["resumed"] = outcome(lambda: resume(folder / "stopped"))
    del Interrupt.asked
    Interrupt.__init__ = original

    wild = replace(cases["bp"], lr=1e8, momentum=0.0, epochs=20)
    outcomes["wild"] = outcome(lambda: train(wild, folder / "wild"))
    outcomes["taken"] = outcome(lambda: train(cases["bp"], folder / "bp"))
    outcomes["unknown"] = outcome(lambda: train(replace(cases["bp"], rule="bpp"), folder / "unknown"))
    outcomes["few"] = outcome(lambda: train(replace(cases["bp"], batch_size=1), folder / "few"))
    (folder / f"outcomes-{rank}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
