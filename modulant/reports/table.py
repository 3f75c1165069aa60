"""A table, written as Markdown and as HTML from the same rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Table:
    """Header and rows of text; without rows it is nothing. A template writes it in its own language.

    Attributes:
        header: one title a column; all empty for none.
        rows: as wide as the header.
        words: number of columns, from the left, that hold words; the others hold numbers, aligned right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __str__(self) -> str:
        return self.markdown()

    def markdown(self, aligned: bool = False) -> str:
        """Markdown.

        Args:
            aligned: pad the cells, so that it also reads as plain text.

        >>> print(Table(["layer", "α"], [["0", "0.01"]]))
        | layer | α |
        | --- | ---: |
        | 0 | 0.01 |
        >>> print(Table(["", "cv"], [["encoder", "0.31"], ["a|b", "0.2"]]).markdown(aligned=True))
        |         |   cv |
        | ------- | ---: |
        | encoder | 0.31 |
        | a\\|b    |  0.2 |
        """
        if not self:
            return ""
        cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (self.header, *self.rows)]
        widths = [max(4, *map(len, column)) if aligned else 0 for column in zip(*cells, strict=True)]
        rules = ["-" * (w or 3) if i < self.words else "-" * (w - 1 if w else 3) + ":" for i, w in enumerate(widths)]
        lines = [[f"{text:{'<' if i < self.words else '>'}{widths[i]}}" for i, text in enumerate(row)] for row in cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rules, *lines[1:]))

    def __html__(self) -> Markup:
        """HTML. In a narrow cell, the line breaks between a number and its interval.

        >>> print(Table(["", ""], [["a<b", "0.1 [0.0, 0.2]"]]).__html__())
        <div class=scroll><table><tbody><tr><td>a&lt;b</td><td class=n>0.1 [0.0,\xa00.2]</td></tr></tbody></table></div>
        """
        if not self:
            return Markup()

        def row(tag: str, texts: Sequence[str]) -> Markup:
            cells = Markup()
            for i, text in enumerate(texts):
                kind = Markup("" if i < self.words else " class=n") + Markup(' scope="col"' if tag == "th" else "")
                shown = text if i < self.words else re.sub(r" (?![(\[])", "\u00a0", text)
                cells += Markup(f"<{tag}{kind}>{escape(shown)}</{tag}>")
            return Markup("<tr>{}</tr>").format(cells)

        head = Markup("<thead>{}</thead>").format(row("th", self.header)) if any(self.header) else ""
        body = Markup().join(row("td", texts) for texts in self.rows)
        return Markup("<div class=scroll><table>{}<tbody>{}</tbody></table></div>").format(head, body)
