"""`dualprop completion`: a script that completes commands, options and names in a shell."""

from __future__ import annotations

from typing import Literal

Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell, /) -> None:
    """Print the script.

    Args:
        shell: bash, zsh or fish.
    """
    from dualprop.cli import app

    print(app.generate_completion(prog_name="dualprop", shell=shell))
