"""Trained nets for ONNX's runtimes: the extra `onnx`."""

from __future__ import annotations

from pathlib import Path

import torch

from dualprop.arguments import Count, Several, checked
from dualprop.extras import extra
from dualprop.nets.net import Net
from dualprop.runs.folder import check_free

with extra("onnx"):
    import onnx  # noqa: F401 - torch's exporter needs both
    import onnxscript  # noqa: F401


@checked
def export(net: Net, file: str | Path, *in_shapes: Several[Count]) -> Path:
    """Write the forward pass of a net, net(x), for any number of samples.

    Args:
        net: without cycles; pre- and postprocessing, such as a soft-max, are not part of it.
        file: what is made, NAME.onnx.
        in_shapes: the shapes of one sample of its inputs.

    Returns:
        The file.

    Raises:
        DualpropError: for a net with cycles, shapes that it does not take, or a file that is there.
    """
    path = check_free(Path(file), "choose another file")
    net.state_shapes(in_shapes)
    names = list(net.wiring.inputs)
    first = next(net.parameters())
    inputs = tuple(torch.zeros(2, *shape, dtype=first.dtype, device=first.device) for shape in in_shapes)
    torch.onnx.export(
        net.plain().eval(),
        inputs,
        path,
        input_names=names,
        output_names=[net.wiring.name(k) for k in net.wiring.outputs],
        dynamic_shapes=tuple({0: torch.export.Dim("samples")} for _ in inputs),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return path
