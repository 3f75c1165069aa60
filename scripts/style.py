"""Checks the words of the pages: `python scripts/style.py [FILE …]`; without files all pages and all messages.

A page is README.md, CONTRIBUTING.md, or a Markdown file or notebook under docs/. A message is a text that a user reads
on the terminal: of an error that is raised, or the help of an option. Each fault is a line `file:line: what`.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SENTENCE, PARAGRAPH = 34, 90  # words
CODE = ("callbacks", "cli", "datamodules", "modulant", "modulators", "probes", "wavegpt")
LIMITS = "benchmarks.md"  # the one page of internal limits
# What is not a standard term, and what is.
WORDS = {
    r"\bgo(es|ing)? on (with|from|where|without|to)\b": "resume, continue",
    r"\bdealt\b": "assigned, permuted, sharded",
    r"\bof a user's own\b": "user-supplied",
    r"\b(laid out|lay out) (the|its|their) (weights|embeddings)\b": "initialise",
    r"\brestat(e|es|ed)\b": "override, repeat",
    r"\bwhoever\b": "name the subject",
    r"\bwhen all is learned\b": "at the end of training",
    r"\bwhat comes to mind\b|\bis there to\b": "say what it does",
    r"\b(simply|obviously|of course)\b": "leave it out",
    r"\butili[sz]e": "use",
    r"\bin order to\b": "to",
}  # fmt: skip
TARGETS = r"\basked\b|\btargets? (was|were|is|of \d|:)|\(target\b|\| target\b"
Line = tuple[int, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the faults; 0 if there are none, else 1."""
    files = [Path(name) for name in (sys.argv[1:] if argv is None else argv)]
    faults = [fault for file in files or [*pages(), *sources()] for fault in faults_of(file)]
    print("\n".join(faults or ["style: no faults"]))
    return 1 if faults else 0


def pages() -> list[Path]:
    """All pages that a user reads."""
    found = [path for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").rglob(kind)]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(found)]


def sources() -> list[Path]:
    """All modules that may hold messages."""
    return sorted(path for package in CODE for path in (ROOT / package).rglob("*.py"))


def faults_of(file: Path) -> Iterator[str]:
    """`file:line: what` for each fault of a page, or of the messages in a module."""
    shown = file.resolve().relative_to(ROOT) if file.resolve().is_relative_to(ROOT) else file
    text = file.read_text(encoding="utf-8")
    found: Iterator[Line]
    if file.suffix == ".py":
        found = (fault for line, message in messages(text) for fault in (*banned(line, message), *long(line, message)))
    else:
        source = markdown_of(text) if file.suffix == ".ipynb" else text
        found = page_faults(source, limits=file.name == LIMITS)
    yield from (f"{shown}:{line}: {what}" for line, what in found)


def page_faults(text: str, limits: bool = False) -> Iterator[Line]:
    """Faults of a page in Markdown; ``limits`` allows what was asked for to stand beside what was measured."""
    prose = without_code(text)
    for number, line in enumerate(prose.splitlines(), 1):
        yield from banned(number, line)
        if not limits and re.search(TARGETS, line, re.IGNORECASE):
            yield number, "a limit of the project: it stands in docs/results/benchmarks.md alone"
    for number, paragraph in paragraphs(prose):
        if (words := len(paragraph.split())) > PARAGRAPH:
            yield number, f"a paragraph of {words} words: at most {PARAGRAPH}; make it a list, a table or two"
        yield from long(number, paragraph)


def banned(number: int, line: str) -> Iterator[Line]:
    """Words that are not the standard ones."""
    for pattern, instead in WORDS.items():
        for match in re.finditer(pattern, line, re.IGNORECASE):
            yield number, f"{match[0]!r}: {instead}"


def long(number: int, paragraph: str) -> Iterator[Line]:
    """Sentences with too many words."""
    for sentence in sentences(paragraph):
        if (words := len(sentence.split())) > SENTENCE:
            yield number, f"a sentence of {words} words: at most {SENTENCE}: {sentence[:60]} …"


def without_code(text: str) -> str:
    """The text with fenced code and comments emptied and inline code as one word; lines keep their numbers."""
    blank = re.sub(
        r"^( *)(```|~~~).*?^\1\2[^\n]*$|<!--.*?-->", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.S
    )
    return re.sub(r"`[^`\n]+`", "code", blank)


def paragraphs(prose: str) -> Iterator[Line]:
    """Paragraphs and list items with the line that each begins in; tables, headings and images are none."""
    begin, gathered = 0, list[str]()
    for number, raw in enumerate([*prose.splitlines(), ""], 1):
        line = raw.strip()
        other = not line or line.startswith(("|", "#", "<", "![", ":::", "---"))
        if gathered and (other or re.match(r"([-*]|\d+\.) ", line)):
            yield begin, " ".join(gathered)
            gathered = []
        if not other:
            begin = begin if gathered else number
            gathered.append(line)


def sentences(paragraph: str) -> list[str]:
    """Sentences, without the addresses of links and without marks of emphasis."""
    bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph).replace("**", "").replace("*", "")
    return re.split(r"(?<=[.!?…])[\"”)]?\s+(?=[A-Z0-9α-ωℓ\"“(+−]|code|\w+:)", bare)


def markdown_of(notebook: str) -> str:
    """The Markdown cells of a notebook."""
    cells = json.loads(notebook)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def messages(source: str) -> Iterator[Line]:
    """Texts of raised errors, and helps of options, with their lines."""
    for node in ast.walk(ast.parse(source)):
        roots: list[ast.AST] = []
        if isinstance(node, ast.Raise) and node.exc is not None:
            roots = [node.exc]
        elif isinstance(node, ast.Call):
            roots = [word.value for word in node.keywords if word.arg in ("help", "description", "epilog")]
        for root in roots:
            for part in ast.walk(root):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


if __name__ == "__main__":
    sys.exit(main())
