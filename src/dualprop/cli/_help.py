"""How help looks: options in one column, what they mean beside them; rules' own settings by rule."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDEST = 100
"""Characters of a line, where the terminal has more."""
COLUMN = 20
"""Of the options; a longer one has a line of its own."""
PLAIN = (None, "none", "false", "False", "the rule's")
"""Defaults that are not shown: what they mean goes without saying, or is said."""


class Columns:
    """Shows a group of options or commands."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Show how the command is called."""
        _print(console, f"Usage: {_text(console, options, usage)}\n")

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show the group."""
        _show(console, str(panel.title), [_row(console, options, entry) for entry in panel.entries])


class ByRule:
    """Shows the settings of the rules that the command line names, with their help; else which rule has which.

    Args:
        helps: for every rule the help of each of its own settings, by name.
    """

    def __init__(self, helps: Mapping[str, Mapping[str, str]]) -> None:
        self.helps = helps

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show the group."""
        labels = {_setting(entry): _row(console, options, entry)[0] for entry in panel.entries}
        own = {name for helps in self.helps.values() for name in helps} & set(labels)
        rows = [_row(console, options, entry) for entry in panel.entries if _setting(entry) not in own]
        named = [rule for rule in _named_rules(sys.argv) if rule in self.helps]
        if not own:
            _show(console, str(panel.title), rows)
        elif named:
            texts = {
                name: {rule: self.helps[rule][name] for rule in named if name in self.helps[rule]} for name in own
            }
            rows += [(labels[name], _together(texts[name], named)) for name in labels if texts.get(name)]
            _show(console, f"{panel.title} {', '.join(named)}", rows)
        else:
            every = [
                name for name in labels if name in own and all(name in helps for helps in self.helps.values())
            ]
            rows += [("every rule", _flags(every))] if every else []
            having: dict[str, list[str]] = {}
            for rule, helps in self.helps.items():
                having.setdefault(_flags(name for name in helps if name not in every), []).append(rule)
            rows += [(", ".join(rules), flags) for flags, rules in having.items() if flags]
            _show(console, f"{panel.title} (with --rule NAME, --help says what its settings do)", rows)


def _together(texts: Mapping[str, str], named: Sequence[str]) -> str:
    """What a setting means in the rules that have it, with their names where that is not the same in all."""
    if len(texts) == len(named) and len(set(texts.values())) == 1:
        return texts[named[0]]
    having: dict[str, list[str]] = {}
    for rule, text in texts.items():
        having.setdefault(text, []).append(rule)
    return " ".join(f"{text} ({', '.join(rules)})" for text, rules in having.items())


def _show(console: Console, title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A title, and rows of two columns below it; nothing where there are none."""
    width, lines = min(console.width, WIDEST), [title]
    for label, meaning in rows:
        beside = len(label) <= COLUMN
        told = textwrap.wrap(_capital(meaning), width - COLUMN - 4, break_on_hyphens=False, break_long_words=False)
        if not beside:
            lines += textwrap.wrap(label, width, initial_indent="  ", subsequent_indent="  ")
        lines += [
            f"  {label if beside and not k else '':{COLUMN}}  {line}".rstrip()
            for k, line in enumerate(told or [""])
        ]
    if lines[1:]:
        _print(console, "\n".join(lines) + "\n")


def _capital(text: str) -> str:
    """With a large letter at its beginning, if that is none of the equations."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _text(console: Console, options: ConsoleOptions, shown: Any) -> str:
    """What something that rich can show says, on one line."""
    segments = console.render(shown or "", options.update(width=10_000))
    return " ".join("".join(segment.text for segment in segments).split())


def _flags(names: Iterable[str]) -> str:
    return " ".join(f"--{name.replace('_', '-')}" for name in names)


def _row(console: Console, options: ConsoleOptions, entry: HelpEntry) -> tuple[str, str]:
    """An option's names, the two flags of true and false in one, and what it means."""
    names = [entry.positional_label or "", *entry.positive_names, *entry.positive_shorts]
    for negative in entry.negative_names:
        name = negative.removeprefix("--no-")
        names = [f"--[no-]{name}" if each == f"--{name}" else each for each in names]
    default = "" if entry.default in PLAIN else f" [{entry.default}]"
    return " ".join(filter(None, names)), _text(console, options, entry.description) + default


def _setting(entry: HelpEntry) -> str:
    return "".join(entry.positive_names[:1]).removeprefix("--").replace("-", "_")


def _named_rules(words: Sequence[str]) -> list[str]:
    """The rules that a command line names."""
    rules: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--rule", "--rules"):
            rules += (value if equals else following).split(",")
    return rules
