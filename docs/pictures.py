"""The picture of the README and of the site's first page: a dyad, and curves of records, for light and dark pages.

python docs/pictures.py         # writes docs/_static/{dyad,curves}-{light,dark}.svg
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path

HERE = Path(__file__).parent
RECORDS = HERE.parent / "results" / "mnist-mlp"
WIDTH, HEIGHT = 400, 270

COLOURS = {
    "light": {"ink": "#1f2328", "faint": "#8c959f", "up": "#0072b2", "down": "#c2510c", "fill": "#f6f8fa"},
    "dark": {"ink": "#e6edf3", "faint": "#7d8590", "up": "#56b4e9", "down": "#f0883e", "fill": "#161b22"},
}


def text(x: float, y: float, words: str, colour: str, size: int = 14, anchor: str = "middle") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{words}</text>'


def dyad(ink: str, faint: str, up: str, down: str, fill: str) -> str:
    """Three layers of one dyad each: means go to the right, differences to the left."""
    parts, top, bottom = [], 96, 160
    for x, name in ((95, "k-1"), (200, "k"), (305, "k+1")):
        parts.append(
            f'<rect x="{x - 27}" y="{top - 30}" width="54" height="{bottom - top + 60}" rx="27" '
            f'fill="{fill}" stroke="{faint}"/>'
        )
        for y, sign in ((top, "+"), (bottom, "−")):
            parts.append(f'<circle cx="{x}" cy="{y}" r="19" fill="none" stroke="{ink}" stroke-width="1.5"/>')
            parts.append(
                f'<text x="{x}" y="{y + 5}" fill="{ink}" font-size="15" text-anchor="middle" font-style="italic">z'
                f'<tspan font-size="12" dy="-6" font-style="normal">{sign}</tspan></text>'
            )
        parts.append(text(x, bottom + 48, f"layer {name}", faint, 12))
    middle = (top + bottom) // 2
    forward, backward = middle - 11, middle + 11
    for x in (28, 128, 233, 338):
        parts.append(
            f'<line x1="{x}" y1="{forward}" x2="{x + 32}" y2="{forward}" stroke="{up}" stroke-width="2.5" '
            'marker-end="url(#up)"/>'
        )
        if x > 28:
            parts.append(
                f'<line x1="{x + 36}" y1="{backward}" x2="{x + 4}" y2="{backward}" stroke="{down}" '
                'stroke-width="2.5" stroke-dasharray="5 3" marker-end="url(#down)"/>'
            )
    parts.append(text(16, forward + 5, "x", ink, 16))
    parts.append(text(386, backward + 5, "y", ink, 16))
    parts.append(text(200, 32, "the mean ½(z⁺ + z⁻) carries the activity forward", up))
    parts.append(text(200, 246, "the difference z⁺ − z⁻ carries the error backward", down))
    marker = '<marker id="{0}" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
    arrows = "".join(
        f'{marker.format(name)}<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for name, colour in (("up", up), ("down", down))
    )
    return f"<defs>{arrows}</defs>{''.join(parts)}"


def errors(rule: str) -> list[float]:
    """Validation errors in %, by epoch, the mean over the seeds."""
    runs = []
    for path in sorted(RECORDS.glob(f"{rule}-seed*/metrics.jsonl")):
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        runs.append([100 * (1 - r["val_accuracy"]) for r in records if r["kind"] == "epoch"])
    return [statistics.fmean(each) for each in zip(*runs, strict=True)]


def curves(ink: str, faint: str, up: str, down: str, fill: str) -> str:
    """The validation error of bp, and of dp on top of it."""
    left, right, low, high = 46, 388, 228, 62  # pixels
    least, most, epochs = 1.0, 6.0, 100

    def x(epoch: float) -> float:
        return left + (right - left) * (epoch - 1) / (epochs - 1)

    def y(error: float) -> float:
        return low - (low - high) * (min(error, most) - least) / (most - least)

    parts = [
        text(left - 30, 24, "MNIST, 784-1000-1000-1000-10", ink, 14, "start"),
        text(left - 30, 43, "validation error %, the mean of 3 seeds", faint, 12, "start"),
    ]
    for tick in range(1, 7):
        parts.append(
            f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" stroke="{faint}" '
            'stroke-opacity="0.35"/>'
        )
        parts.append(text(left - 8, y(tick) + 4, str(tick), faint, 12, "end"))
    for epoch in (1, 25, 50, 75, 100):
        parts.append(text(x(epoch), low + 18, str(epoch), faint, 12))
    parts.append(text((left + right) / 2, low + 36, "epoch", faint, 12))
    for rule, colour, wide in (("bp", faint, 6), ("dp", up, 2)):
        points = " ".join(f"{x(epoch):.1f},{y(error):.1f}" for epoch, error in enumerate(errors(rule), 1))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{wide}" '
            f'stroke-opacity="{0.6 if rule == "bp" else 1}" stroke-linejoin="round"/>'
        )
    for line, (label, colour, wide) in enumerate((("backprop", faint, 6), ("dual propagation", up, 2))):
        at = 92 + 22 * line
        parts.append(f'<line x1="230" y1="{at}" x2="254" y2="{at}" stroke="{colour}" stroke-width="{wide}"/>')
        parts.append(text(262, at + 5, label, ink, 13, "start"))
    return "".join(parts)


DRAWN = {
    "dyad": (dyad, "Three dyads in a row: means of the two states go forward, their differences backward."),
    "curves": (curves, "Validation error over 100 epochs: dual propagation lies on back-propagation."),
}


def pictures() -> dict[str, str]:
    """Every picture by the name of its file."""
    made = {}
    for name, (draw, what) in DRAWN.items():
        for look, colours in COLOURS.items():
            made[f"{name}-{look}.svg"] = (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
                f'height="{HEIGHT}" font-family="-apple-system, Segoe UI, Helvetica, sans-serif" role="img">'
                f"<title>{what}</title>{draw(**colours)}</svg>\n"
            )
    return made


if __name__ == "__main__":
    for name, markup in pictures().items():
        (HERE / "_static" / name).write_text(markup, encoding="utf-8")
