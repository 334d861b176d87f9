"""Activations that send the finite difference of the definition back, one call at a time, steps given by hand."""

import torch


class _Nudged(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, f, up, down):
        ctx.save_for_backward(a)
        ctx.settings = f, up, down
        return f(a)

    @staticmethod
    def backward(ctx, delta):
        (a,), (f, up, down) = ctx.saved_tensors, ctx.settings
        return f(a + up * delta) - f(a - down * delta), None, None, None


def nudged(a, f, up, down):
    """f(a); a difference δ that comes to it goes on as f(a + up δ) - f(a - down δ)."""
    return _Nudged.apply(a, f, up, down)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, by):
        ctx.by = by
        return a.clone()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.by, None


def difference(a, f, s, alpha=0.5):
    """f(a); what comes back is (f(a + ᾱ s g) - f(a - α s g)) / s, for a gradient g makes δ = -s g."""
    return _Scaled.apply(nudged(_Scaled.apply(a, -1 / s), f, alpha, 1 - alpha), -s)


FUNCTIONS = {
    "relu": lambda a: a.clamp(min=0),
    "leaky-relu": lambda a: torch.where(a > 0, a, 0.01 * a),
    "tanh": lambda a: 1 - 2 / (1 + torch.exp(2 * a)),
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "silu": lambda a: a / (1 + torch.exp(-a)),
    "gelu": lambda a: 0.5 * a * (1 + torch.erf(a / 2**0.5)),
    "softplus": lambda a: torch.log1p(torch.exp(a)),
    "elu": lambda a: torch.where(a > 0, a, torch.exp(a) - 1),
    "hardtanh": lambda a: a.clamp(-1, 1),
}
"""By their definitions."""
