"""Numbers as text, the same in pages and on figures: rounded, with a true minus sign."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: Any, digits: int = 4, signed: bool = False) -> str:
    """A rounded number; a dash for what was not measured or is no number; no sign on what rounds to zero.

    >>> number(-0.06512), number(0.5, 1, signed=True), number(-1e-9, 2), number(None)
    ('−0.0651', '+0.5', '0.00', '–')
    """
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    rounded = round(value, digits) + 0.0  # −0.0 + 0.0 is 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def with_interval(value: Any, ends: Sequence[float] | None, digits: int = 4, signed: bool = True) -> str:
    """A number and its interval, if there is one.

    >>> with_interval(0.02, (0.01, 0.03)), with_interval(None, None)
    ('+0.0200 [+0.0100, +0.0300]', '–')
    """
    return number(value, digits, signed) + (f" {interval(ends, digits, signed)}" if ends else "")


def interval(ends: Sequence[float], digits: int = 4, signed: bool = True) -> str:
    """The two ends in brackets.

    >>> interval((-0.01, 0.03), 2)
    '[−0.01, +0.03]'
    """
    return f"[{', '.join(number(end, digits, signed) for end in ends)}]"


def layers_named(layers: Sequence[int]) -> str:
    """Layers by number; a long run of them by its ends.

    >>> layers_named([0, 2]), layers_named(range(30)), layers_named([0, *range(20, 30)])
    ('0, 2', '0 … 29', '0, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29')
    """
    first, last = min(layers), max(layers)
    if len(layers) > 8 and list(layers) == list(range(first, last + 1)):
        return f"{first} … {last}"
    return ", ".join(map(str, layers))


def counted(count: int, noun: str) -> str:
    """A count and its noun, which takes an s unless the count is 1.

    >>> counted(1, "step"), counted(0, "answer"), counted(1200, "pair")
    ('1 step', '0 answers', '1,200 pairs')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["xz"]), listed(["xz", "bz2"]), listed(["a", "b", "c"])
    ('xz', 'xz and bz2', 'a, b and c')
    """
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def short(count: int) -> str:
    """A count in three digits.

    >>> short(120), short(41_000), short(25_300_000)
    ('120', '41 k', '25.3 M')
    """
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def parts_of(data: Mapping[str, Any]) -> str:
    """How held-out entries are divided, in brackets; nothing where there is no test part.

    >>> parts_of({"validation_entries": 478, "test_entries": 1000}), parts_of({})
    (' (478 for validation, 1,000 for the test)', '')
    """
    if "test_entries" not in data:
        return ""
    return f" ({data['validation_entries']:,} for validation, {data['test_entries']:,} for the test)"


def duration(seconds: float, digits: int = 1) -> str:
    """A time; below a minute with `digits` decimals.

    >>> duration(7.3), duration(7.3, digits=0), duration(185), duration(8000)
    ('7.3 s', '7 s', '3 min 5 s', '2 h 13 min')
    """
    if seconds < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def change(what: str, before: float | None, after: float, digits: int) -> str:
    """A title that says how a figure changed.

    >>> change("loss", 5.25, 4.5, 2), change("loss", None, 4.5, 2)
    ('Loss: 5.25 → 4.50', 'Loss: 4.50')
    """
    first = what[0].upper() + what[1:]
    if before is None or not math.isfinite(before):
        return f"{first}: {number(after, digits)}"
    return f"{first}: {number(before, digits)} → {number(after, digits)}"
