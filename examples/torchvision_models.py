"""How close dual propagation comes to back-propagation on torchvision's models, by the strength of the nudges.

Each model is at its random initial weights (those that torchvision sets to zero drawn anew), in training mode and
double precision; the images are normal noise. Per strength β: the cosine between both gradients of all parameters,
and the lowest one of a single parameter tensor.

    python examples/torchvision_models.py
"""

from __future__ import annotations

import copy

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import dualprop as dp

BETAS = (1e-3, 0.1, 1.0, 10.0)
BATCH, CLASSES = 8, 10


def vgg16_bn() -> nn.Module:
    """With a head for the one pixel that five poolings leave of an image of 32 x 32."""
    model = torchvision.models.vgg16_bn(num_classes=CLASSES)
    model.avgpool, model.classifier[0] = nn.Identity(), nn.Linear(512, 4096)
    return model


def vit_b_16() -> nn.Module:
    """With a random head in place of torchvision's zeros, through which nothing would go back at first."""
    model = torchvision.models.vit_b_16(image_size=32, num_classes=CLASSES)
    nn.init.normal_(model.heads.head.weight, std=0.02)
    return model


MODELS = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=CLASSES), 32),
    "vgg16_bn": (vgg16_bn, 32),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=CLASSES), 64),
    "vit_b_16": (vit_b_16, 32),
    "convnext_tiny": (lambda: torchvision.models.convnext_tiny(num_classes=CLASSES), 32),
}
"""How to make each model, and the side of its images."""


def gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and all gradients of the mean cross-entropy; dropout always draws the same."""
    torch.manual_seed(0)
    output = model(x)
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(F.cross_entropy(output, y), list(named.values()))
    return output.detach(), dict(zip(named, grads, strict=True))


def cosines(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, float]:
    """Of all numbers together, and the lowest of one parameter that receives more than rounding errors."""
    dots = torch.stack([torch.sum(ours[name] * theirs[name]) for name in ours])
    norms = [torch.stack([g.norm() for g in side.values()]) for side in (ours, theirs)]
    each = dots / (norms[0] * norms[1])
    return float(dots.sum() / (norms[0].norm() * norms[1].norm())), float(each[norms[1] > 1e-9].min())


def main() -> None:
    """Print the table."""
    print("| model | converted | " + " | ".join(f"β = {beta:g}" for beta in BETAS) + " |")
    print("| --- | --- | " + " | ".join("---" for _ in BETAS) + " |")
    for name, (make, side) in MODELS.items():
        torch.manual_seed(1)
        model, x, y = make().double(), torch.randn(BATCH, 3, side, side).double(), torch.arange(BATCH) % CLASSES
        _, theirs = gradients(model, x, y)
        cells = []
        for beta in BETAS:
            converted = dp.convert(copy.deepcopy(model), beta=beta)
            _, ours = gradients(converted, x, y)
            cells.append("{:.4f} (lowest {:.2f})".format(*cosines(ours, theirs)))
        what = str(dp.conversion(converted)).partition(";")[0].removeprefix("converted: ")
        print(f"| {name} | {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
