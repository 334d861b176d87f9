"""The process of a worker, `python -m dualprop.cli.worker`: it waits for its order on standard input.

An order is one line of JSON. When standard input ends, the driver is gone, and so is the process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from dualprop.cli._imports import again
from dualprop.training.workers.process import Server


def main() -> None:
    """Wait for an order, and work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver says when
    import torch._dynamo  # noqa: F401 - what optimizers import at their first step, and most data when
    import torchvision.datasets  # noqa: F401 - they are read: one that waits has the time

    line = sys.stdin.buffer.readline()
    if line:
        order = json.loads(line)
        again([Path(file) for file in order["imports"]])
        Server(order, sys.stdin.fileno()).serve()
    sys.stderr.flush()
    os._exit(0)  # taking all of PyTorch down again would take seconds, and there is nothing left to keep


if __name__ == "__main__":
    main()
