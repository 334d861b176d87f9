"""The pages of the interface: every public name once, by the room that it comes from, from its docstring."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import dualprop
from dualprop.registry import Registry

PAGES = {
    "nets": ("Nets", "What a net is made of."),
    "synapses": ("Synapses and pools", "The affine maps on the edges of a net."),
    "potentials": ("Potentials", "What neurons minimise against their drive."),
    "losses": ("Losses", "What the outputs are told."),
    "rules": ("Rules", "What turns a batch into gradients. All of them have the methods of `Rule`."),
    "schedules": ("Schedules", "In which order layers are updated."),
    "diagnostics": ("What a gradient is worth", "Angles to backprop, and pictures of them."),
    "convert": ("Converting modules", "The same algorithm on any PyTorch module."),
    "training": ("Training", "The loop, run folders and comparisons."),
    "stream": ("Streams", "Inference and learning without end."),
    "workers": ("Workers", "Layers that are updated by workers without a clock."),
    "devices": ("Devices", "What stands between the equations and a physical device."),
    "data": ("Data", "Data sets, batches, and data of your own."),
    "errors": ("Errors", "All are one line that names the argument, the value and what is allowed."),
}
"""By name: a title and a line."""

ROOMS = {
    "nets": "nets",
    "nets.synapses": "synapses",
    "nets.potentials": "potentials",
    "nets.losses": "losses",
    "nets.devices": "devices",
    "devices": "devices",
    "engines": "rules",
    "engines.dyads.schedules": "schedules",
    "rules": "rules",
    "rules.diagnostics": "diagnostics",
    "studies.plots": "diagnostics",
    "convert": "convert",
    "runs": "training",
    "training": "training",
    "training.stream": "stream",
    "training.workers": "workers",
    "studies": "training",
    "data": "data",
    "errors": "errors",
}
"""The page of what a module, or one below it, defines."""

HERE = Path(__file__).parents[1] / "api"
MEANT = re.compile(r"\||(?<=[(, ])\*(?=\w+[,)(\]])")


def public() -> dict[str, Any]:
    """Everything public by its name below `dualprop`; of several names for one thing the shortest."""
    top = {name: getattr(dualprop, name) for name in dualprop.__all__ if name[0] != "_"}
    found = {name: thing for name, thing in top.items() if not isinstance(thing, ModuleType)}
    for room, module in top.items():
        if isinstance(module, ModuleType):
            for name in getattr(module, "__all__", ()):
                thing = getattr(module, name)
                if not isinstance(thing, ModuleType) and not any(thing is other for other in found.values()):
                    found[f"{room}.{name}"] = thing
    return found


def page_of(thing: Any) -> str:
    """The page that something stands on, by the longest of `ROOMS` that it comes from.

    Raises:
        ExtensionError: where there is none.
    """
    module = thing.__module__.removeprefix("dualprop.")
    within = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    if not within:
        raise ExtensionError(f"{thing.__module__}: on no page; give it one in docs/_ext/interface.py")
    return ROOMS[max(within, key=len)]


def _is_base(thing: Any, there: dict[str, Any]) -> bool:
    """Whether others are kinds of it: then it stands before them."""
    return inspect.isclass(thing) and any(
        inspect.isclass(other) and thing in inspect.getmro(other)[1:] for other in there.values()
    )


def pages() -> dict[str, str]:
    """Every page in Markdown, by its name."""
    entries: dict[str, list[str]] = {name: [] for name in PAGES}
    registries = []
    there = public()
    for name, thing in sorted(there.items(), key=lambda item: not _is_base(item[1], there)):
        if isinstance(thing, Registry):
            registries.append(f"`dp.{name}`\n: {', '.join(f'`{entry}`' for entry in thing)}")
        elif inspect.isclass(thing):
            entries[page_of(thing)].append(f".. autoclass:: dualprop.{name}\n   :members:\n   :show-inheritance:")
        elif callable(thing):
            entries[page_of(thing)].append(f".. autofunction:: dualprop.{name}")
    made = {
        name: f"# {PAGES[name][0]}\n\n{PAGES[name][1]}\n\n"
        + "\n\n".join(f"```{{eval-rst}}\n{directive}\n```" for directive in own)
        + "\n"
        for name, own in entries.items()
        if own
    }
    made["index"] = (
        "# The interface\n\nEvery public name, by subject, as its docstring has it. What is not here may change "
        "without notice; what is here changes [as promised](../reference/promises.md).\n\n"
        "```{toctree}\n:maxdepth: 1\n\n" + "\n".join(made) + "\n```\n\n"
        "## Registries\n\nOne more entry, and the command line, recipes and reports know it.\n\n"
        + "\n\n".join(registries)
        + "\n"
    )
    return made


def write(app: Sphinx) -> None:
    """Make the pages."""
    HERE.mkdir(exist_ok=True)
    made = {HERE / f"{name}.md": text for name, text in pages().items()}
    for path in set(HERE.glob("*.md")) - set(made):
        path.unlink()
    for path, text in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # what is new is built again
            path.write_text(text, encoding="utf-8")


def escaped(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Strokes and stars outside of code stand for themselves: |β| is no substitution, (B, *shape) no emphasis."""
    for number, line in enumerate(lines):
        if not re.match(r"\s*(>>>|\.\.\.)", line):
            parts = line.split("`")
            lines[number] = "`".join(
                part if odd % 2 else MEANT.sub(r"\\\g<0>", part) for odd, part in enumerate(parts)
            )


def setup(app: Sphinx) -> dict[str, bool]:
    """The pages are made before Sphinx looks for them."""
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", escaped)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
