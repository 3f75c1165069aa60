"""Answers side by side as text, with the differences of the modulated model's answer marked.

On a terminal, text that it left out is struck through and text that it added is green. Where colours are off (a pipe,
NO_COLOR, TERM=dumb) they are [-left out-] and {+added+}, as `wdiff` writes them.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modulators.comparison.generation import Answer, Comparison
from modulators.inspection import Inspection

PLAIN_WIDTH = 100  # columns, without a terminal to ask


def console(file: TextIO | None = None) -> Console:
    """A console: in colour on a terminal that supports it, else without any escape code."""
    probe = Console(file=file or sys.stdout)
    plain = not probe.is_terminal or probe.is_dumb_terminal or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=probe.file,
        color_system=None if plain else "auto",
        width=probe.width if probe.is_terminal else int(os.environ.get("COLUMNS") or PLAIN_WIDTH),
        highlight=False,
        markup=False,
        emoji=False,
    )


def show(answers: Iterable[Comparison], screen: Console, heading: bool = True, name: str = "modulated") -> None:
    """Print answers, those to one prompt together.

    Args:
        answers: of both models.
        screen: where to print.
        heading: print the prompt above its answers; not where the user has just typed it.
        name: what to call the model that answers beside the original.
    """
    with screen.capture() as captured:
        _print(answers, screen, heading, name)
    lines = captured.get()
    if screen.color_system is None:  # rich pads lines with spaces
        lines = "".join(f"{line.rstrip()}\n" for line in lines.splitlines())
    screen.file.write(lines)
    screen.file.flush()


def show_inspection(inspection: Inspection, screen: Console) -> None:
    """Print how far each token is moved, in percent of its vector at each layer, and its drift at the encoder's end."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("moved by, %", no_wrap=True)
    for name in (*(f"layer {layer}" for layer in inspection.layers), "drift, 1 − cos"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = zip(inspection.tokens, inspection.moved.tolist(), inspection.drift.tolist(), strict=True)
    for token, moved, drift in rows:
        table.add_row(Text(token), *(f"{100 * share:.2f}" for share in moved), f"{drift:.4f}")
    with screen.capture() as captured:
        screen.print(Padding(table, (0, 0, 0, 2)))
    screen.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    screen.file.flush()


def _print(answers: Iterable[Comparison], screen: Console, heading: bool, name: str) -> None:
    coloured = screen.color_system is not None
    before: str | None = None
    original: tuple[int, Answer] | None = None
    for asked in answers:
        rows = Table.grid(padding=(0, 2))
        rows.add_column(no_wrap=True, min_width=10)
        rows.add_column(overflow="fold")
        if asked.prompt != before:
            if heading:
                screen.print(Text(asked.prompt, "bold"))
            before, original = asked.prompt, None
        if original != (asked.sample, asked.original):  # once for all scales
            original = (asked.sample, asked.original)
            _add(rows, "original", Text(asked.original.text), asked.original)
        scaled = f"α × {asked.alpha_scale:g}" if name == "modulated" else f"{name}, α × {asked.alpha_scale:g}"
        _add(
            rows,
            name if asked.alpha_scale == 1 else scaled,
            differences(_pieces(asked.original), _pieces(asked.modulated), coloured),
            asked.modulated,
        )
        screen.print(Padding(rows, (0, 0, 0, 2)))


def _add(rows: Table, label: str, text: Text, answer: Answer) -> None:
    rows.add_row(Text(label, "dim"), text)
    if answer.next:
        rows.add_row("", Text("  ".join(f"{token or '·'} {chance:.3f}" for token, chance in answer.next), "dim"))


def differences(original: Sequence[str], modulated: Sequence[str], coloured: bool) -> Text:
    """The modulated answer with its differences from the original marked, token by token.

    >>> differences(["dog", " dog"], ["dog", " hound"], coloured=False).plain
    'dog [-dog-] {+hound+}'
    >>> differences(["dog"], ["dog"], coloured=False).plain, differences([], ["a", " dog"], coloured=False).plain
    ('dog', '{+a dog+}')
    """
    marked = Text()
    matcher = difflib.SequenceMatcher(None, original, modulated, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            marked.append("".join(modulated[k:m]))
            continue
        _mark(marked, "".join(original[i:j]), "red strike", "[-{}-]".format, coloured)
        _mark(marked, "".join(modulated[k:m]), "bold green", "{{+{}+}}".format, coloured)
    return marked


def _pieces(answer: Answer) -> list[str]:
    """The text as tokens if these join to the same text, else as words."""
    pieces = [token.replace("▁", " ") for token in answer.tokens if not (token[0] == "<" and token[-1] == ">")]
    if pieces and "".join(pieces).lstrip(" ") == answer.text:
        return [pieces[0].lstrip(" "), *pieces[1:]]
    return [f" {word}" if i else word for i, word in enumerate(answer.text.split(" "))] if answer.text else []


def _mark(text: Text, said: str, style: str, in_plain: Callable[[str], str], coloured: bool) -> None:
    inner = said.lstrip(" ")
    text.append(said[: len(said) - len(inner)])
    if inner:
        text.append(inner if coloured else in_plain(inner), style if coloured else "")
