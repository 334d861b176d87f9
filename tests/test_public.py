"""What is public stays: names, arguments, members, entries of registries, commands and options."""

from tests.public import KEPT, absent, lines


def test_nothing_public_is_gone():
    """Where it is meant: docs/reference/promises.md, the changelog, then `python -m tests.public`."""
    kept = {line for line in KEPT.read_text(encoding="utf-8").splitlines() if not line.startswith(absent())}
    assert kept - set(lines()) == set()
