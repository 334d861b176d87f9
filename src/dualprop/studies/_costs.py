"""What hardware would pay, as columns of tables."""

from __future__ import annotations

from collections.abc import Mapping

COLUMNS = {
    "multiply_adds": ("MACs / sample", 1.0),
    "bits_moved": ("bits / sample", 1.0),
    "weight_writes": ("writes / sample", 1.0),
    "picojoules": ("nJ / sample", 1e-3),
    "zeros_up": ("zeros up %", 100.0),
    "zeros_down": ("zeros down %", 100.0),
}
"""By the names of `dualprop.devices.Trace.by_sample`: what stands above, and what the number is multiplied by."""

NOTE = (
    "MACs: multiply-adds of products on states and errors; bits: moved from layers to products, zeros left out; "
    "writes: of weights; nJ: all of it; zeros up, down: the part of zeros in what layers send up (z̄ of dyads) and "
    "down (z⁺ - z⁻)."
)
"""What they mean."""


def cells(numbers: Mapping[str, float]) -> dict[str, str]:
    """Words by column; empty for what was not measured.

    Example:
        >>> cells({"picojoules": 1234.5})["nJ / sample"]
        '1.234'
    """
    return {
        title: f"{scale * numbers[name]:.4g}" if name in numbers else ""
        for name, (title, scale) in COLUMNS.items()
    }
