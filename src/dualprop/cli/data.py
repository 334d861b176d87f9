"""`dualprop data`: what data sets there are, getting them, and looking into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from dualprop.errors import printable

app = App(name="data", help="List, fetch and look into data sets.")

Name = Annotated[str, Parameter(help="A name that `dualprop data list` shows, or folder:PATH.")]
Root = Annotated[
    Path | None,
    Parameter(name="--data-root", help="Folder of the data sets; else $DUALPROP_DATA, else the user's cache."),
]
ImageSize = Annotated[
    int | None,
    Parameter(name="--image-size", help="For folder:PATH: height and width to bring images to."),
]
Background = Annotated[
    int,
    Parameter(
        name="--background", help="For folder:PATH: grey level, 0..255, that transparent images are laid on."
    ),
]


@app.command(name="list")
def list_datasets(*, data_root: Root = None) -> None:
    """Show every data set, and which files it still needs."""
    from rich.console import Console
    from rich.table import Table

    from dualprop import data

    root = data.data_root(data_root)
    table = Table("name", "what it is", "files", title=f"Data sets in {printable(str(root))}")
    for name, source in data.DATASETS.items():
        missing = source.missing(root)
        table.add_row(name, source.summary, f"missing: {', '.join(missing)}" if missing else "present")
    table.add_row("folder:PATH", "your images in PATH/train/CLASS/* and PATH/test/CLASS/*", "")
    Console(markup=False).print(table)


@app.command()
def fetch(name: Name, /, *, data_root: Root = None) -> None:
    """Download a data set unless it is there, and check its content."""
    from rich.console import Console

    from dualprop import data

    root = data.data_root(data_root)
    data.fetch(name, root)
    Console(markup=False).print(printable(f"{name}: complete in {root}"), highlight=False, soft_wrap=True)


@app.command()
def info(
    name: Name, /, *, data_root: Root = None, image_size: ImageSize = None, background: Background = 255
) -> None:
    """Read a data set and show what is in it."""
    from rich.console import Console
    from rich.table import Table

    from dualprop import data
    from dualprop.data.official import OFFICIAL

    dataset = data.load(name, data_root, image_size, background)
    facts = Table(title=printable(dataset.name), show_header=False)
    facts.add_row("images", f"{len(dataset.train):,} to train on, {len(dataset.test):,} to test on")
    facts.add_row("shape", " × ".join(map(str, dataset.in_shape)))
    facts.add_row("classes", str(dataset.num_classes))
    facts.add_row("mean", ", ".join(f"{value:.4f}" for value in dataset.mean))
    facts.add_row("std", ", ".join(f"{value:.4f}" for value in dataset.std))
    facts.add_row("content", "verified: the official one" if name in OFFICIAL else "no official one is known")
    console = Console(markup=False)
    console.print(facts)
    if isinstance(dataset.train, data.Split) and isinstance(dataset.test, data.Split) and dataset.classes:
        counts = Table("label", "class", "train", "test")
        train, test = (
            split.labels.bincount(minlength=dataset.num_classes) for split in (dataset.train, dataset.test)
        )
        for label, class_name in enumerate(dataset.classes):
            counts.add_row(str(label), printable(class_name), f"{int(train[label]):,}", f"{int(test[label]):,}")
        console.print(counts)
