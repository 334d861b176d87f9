"""Matplotlib's figures as a part of a page: small, in the page's colours and letters, with ids of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from matplotlib import style
from matplotlib.figure import Figure

from dualprop.studies._figure import BLACK, COLOURS, DEFAULT, STYLE

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"

GRID = "#b0b0b0"
WORDS = {BLACK: "currentColor", GRID: "var(--line)"} | {c: f"var(--series-{n})" for n, c in enumerate(COLOURS)}
"""What our colours are in a page, which has a light and a dark look."""

NUMBER = re.compile(r"-?\d+\.\d+")
COLOUR = re.compile(r"#[0-9a-f]{6}")
REFERENCE = re.compile(r"#([\w.-]+)\)?")

drawn = style.context(
    [
        DEFAULT,
        STYLE,
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "dualprop",
            "grid.color": GRID,
            "grid.alpha": 1,
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.labelsize": 10,
            "path.simplify_threshold": 0.3,
        },
    ]
)
"""A decorator: what the function draws and `markup` saves is the same wherever matplotlib is the same."""


def markup(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element for a page.

    Text stays text. Colours are the page's: black is that of its text, ours are `--series-0`, `--series-1`, ...

    Args:
        figure: made under `drawn`.
        name: begins every id in it, so that no two figures of a page have one in common.
        title: its accessible name.
        description: what it shows, for those who do not see it.
    """
    text = io.BytesIO()
    unsigned: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=unsigned)
    root = ElementTree.fromstring(text.getvalue())
    width, height = root.get("viewBox", "").split()[2:]
    used = {reference for element in root.iter() for reference in _references(element)}
    names = {old: f"{name}-{n}" for n, old in enumerate(sorted(used), 2)}
    attributes = f'viewBox="0 0 {_rounded(width)} {_rounded(height)}" width="{_rounded(width)}" role="img"'
    labels = f'aria-labelledby="{name}-0 {name}-1" fill="currentColor"'
    said = f'<title id="{name}-0">{escaped(title)}</title><desc id="{name}-1">{escaped(description)}</desc>'
    inside = "".join(part for child in root for part in _written(child, names))
    return f"<svg {attributes} {labels}>{said}{inside}</svg>"


def escaped(text: str) -> str:
    """A text as HTML and XML may hold it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _references(element: Element) -> Iterator[str]:
    """The ids that an element refers to."""
    for key, value in element.items():
        if key == HREF or value.startswith("url("):
            yield from REFERENCE.findall(value)


def _written(element: Element, names: dict[str, str]) -> Iterator[str]:
    """An element without what says nothing: groups are opened, ids kept where something refers to them."""
    tag = element.tag.removeprefix(SVG)
    if tag in ("metadata", "style"):
        return
    attributes = dict(_attributes(tag, element, names))
    inside = "".join(part for child in element for part in _written(child, names))
    words = escaped(element.text or "") if tag == "text" else ""
    if tag in ("g", "defs") and not inside:
        return
    if tag == "g" and not attributes:
        yield inside
        return
    if tag == "path" and attributes.get("style") == "fill:none":
        return  # the ground, which is the page's
    listed = "".join(f' {key}="{escaped(value)}"' for key, value in attributes.items())
    yield f"<{tag}{listed}>{words}{inside}</{tag}>" if words or inside else f"<{tag}{listed}/>"


def _attributes(tag: str, element: Element, names: dict[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in element.items():
        if key == "id":
            if value in names:
                yield key, names[value]
        elif key == "style":
            if style := _style(value):
                yield key, style
        elif key == HREF:
            yield "href", value if value.startswith("data:") else f"#{names[value[1:]]}"
        elif value.startswith("url(#"):
            yield key, f"url(#{names[value[5:-1]]})"
        elif key == "d":
            yield key, re.sub(r"\s*([A-Za-z])\s*", r"\1", _rounded(value)).strip()
        elif key == "transform" and tag == "image":
            yield key, NUMBER.sub(lambda found: f"{float(found[0]):.6g}", value)
        elif not value.startswith("rotate(-0 "):
            yield key, value if value.startswith("data:") else _rounded(value)


def _rounded(value: str) -> str:
    """Numbers with one digit behind the point."""
    return NUMBER.sub(lambda found: f"{float(found[0]) + 0.0:.1f}".removesuffix(".0"), value)


def _style(value: str) -> str:
    """Declarations without a font's name, which is the page's, in the page's colours."""
    parts = (part.partition(":") for part in value.split(";") if part.strip())
    kept = {key.strip(): said.strip() for key, _, said in parts if key.strip() != "font-family"}
    short = NUMBER.sub(lambda found: f"{float(found[0]):g}", ";".join(map(":".join, kept.items())))
    return COLOUR.sub(lambda found: WORDS.get(found[0], found[0]), short)
