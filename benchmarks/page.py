"""The page of benchmarks: a summary of measured against limit, a figure of it, then each section's table, folded.

The page is its own store: tables of sections that are not measured anew are read from it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import ROOT, Row, table
from modulant.storage import write_whole

PAGE = ROOT / "docs" / "results" / "benchmarks.md"
FIGURE = ROOT / "docs" / "figures" / "benchmarks.png"
TITLES = {
    "step": "A training step, and where its time goes",
    "field_gates": "The field's gates, against LoRA of their size",
    "attached": "On other families, against their forward pass and full fine-tuning",
    "sentences": "A SentenceTransformer's encode, against the base's",
    "cached": "Cached lower layers, against full fine-tuning",
    "batches": "Batches: real tokens, shapes",
    "loop": "Lightning's Trainer, against a bare loop",
    "wire": "Bytes on the wire, against plain DistributedDataParallel",
    "growth": "How cost grows",
    "startup": "Start-up, beside importing the libraries",
    "relations": "WordNet relations, against NLTK",
    "evaluation": "Evaluation over all pairs, against its own cosine products",
    "pentachora": "Pentachora, against a determinant loop and batched determinants",
    "waves": "Wave language models, against RoPE",
    "batteries": "Terrain and topology, against the plain way to each figure",
}
# What the summary shows of a section: the row whose first cell holds this, and what that is compared with.
HEADLINES = {
    "step": ("T5-small: field at all", "field in a step, T5-small's sizes", "full fine-tuning"),
    "field_gates": ("gate: centred, 9,733", "field in a step, `mini`", "LoRA of its size"),
    "attached": ("all-MiniLM-L6-v2's sizes, 64 × 24 tokens, a pass: field", "field in a pass", "no modulator"),
    "cached": ("T5-small: field, last layer, cached", "field in the last layer, cached", "full fine-tuning"),
    "batches": ("real tokens, both: all, batch 64", "real tokens in a batch", "all tokens"),
    "loop": ("lerp.yaml, mini", "Trainer with LERP, a step", "a bare loop"),
    "startup": ("to its first batch", "`fit`, to its first batch", "the imports"),
    "relations": ("path, all pairs", "path similarity, times as fast", "NLTK"),
    "evaluation": ("all pairs, 2 threads, beside its cosine", "relational evaluation", "its cosine products"),
    "pentachora": ("1,000 draws, against batched", "1,000 pentachora, times as fast", "batched determinants"),
    "waves": ("layer, 256 tokens, 192 wide", "interference layer, 192 wide", "RoPE"),
    "batteries": ("figures of 16 heads", "figures of 16 heads, times as fast", "the D × D way"),
}  # fmt: skip
INTRO = """\
# Benchmarks

A speed is a ratio to the plain way, measured in the same run, with the results compared in that run. Ratios should \
hold on another machine; times are this one's. `make bench` measures all of it and writes this page. \
`python -m benchmarks --only NAME` replaces one section, `--page` rewrites the page from its tables.

The limits are the project's own: what was asked for before it was measured, met or not.\
"""
NOTES = """\
In brackets: where nine of ten turns lie. "Met" counts the section's limits by the median.

For a GPU, `python -m benchmarks.gpu --out DIR` leaves a table with the device's name \
([what was seen](../howto/fast.md#what-was-seen-on-a-gpu)). \
[What things cost, and why](costs.md) explains the ratios, and keeps what was measured once.\
"""
Tables = dict[str, tuple[str, list[Row]]]


class Limit(NamedTuple):
    """A measured value beside what was asked for: ``share`` is at most 1 where it is met."""

    measured: str
    asked: str
    share: float

    @property
    def met(self) -> bool:
        """Whether the median is within the limit."""
        return self.share <= 1


def write_page(measured: Mapping[str, tuple[str, list[Row]]]) -> None:
    """Write page and figure: sections that were measured, and the others as they stand in the page."""
    tables = {**read_tables(PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""), **measured}
    draw(tables, FIGURE)
    write_whole(PAGE, render(tables))


def read_tables(page: str) -> Tables:
    """Name → (line that says where it was measured, rows) of each section."""
    found = {}
    for title, body in re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n?)*)", page, flags=re.MULTILINE):
        name = next((name for name, known in TITLES.items() if known == title), None)
        lines = [line for line in body.splitlines() if line.startswith("| ")]
        if name is not None and lines:
            head = re.search(r"^`python -m benchmarks --only .*$", body, flags=re.MULTILINE)
            columns, _, *rows = ([cell.strip() for cell in line[1:-1].split("|")] for line in lines)
            found[name] = (head[0] if head else "", [dict(zip(columns, row, strict=True)) for row in rows])
    return found


def render(tables: Mapping[str, tuple[str, list[Row]]]) -> str:
    """The page, its sections in the order of `TITLES`."""
    image = f"![Each limit: measured over limit, by section](../figures/{FIGURE.name})"
    parts = [INTRO, "## Summary", summary(tables), image, NOTES, missed(tables)]
    for name, title in TITLES.items():
        if name in tables:
            head, rows = tables[name]
            lead, _, rest = _about(name).partition("\n\n")
            limits = list(limits_of(rows))
            said = f"; {sum(limit.met for limit in limits)} of {len(limits)} limits met" if limits else ""
            fold = ['<details markdown="1">', f"<summary>{len(rows)} rows{said}</summary>"]
            inside = [*filter(None, [rest, head]), table(rows)]
            parts += [f"## {title}", lead, "\n".join(fold), *inside, "</details>"]
    return "\n\n".join(filter(None, parts)) + "\n"


def summary(tables: Mapping[str, tuple[str, list[Row]]]) -> str:
    """One row a section that has limits: a telling row of it, and how many of its limits are met."""
    lines = ["| what | beside | measured | asked | met |", "| --- | --- | ---: | ---: | ---: |"]
    for name, (part, what, beside) in HEADLINES.items():
        rows = tables[name][1] if name in tables else []
        limits = list(limits_of(rows))
        for row in [row for row in rows if part in row["what"]][:1]:
            one = limit_of(row)
            assert one is not None, f"{part}: a headline without a limit"
            link = re.sub(r"[^\w\- ]", "", TITLES[name].lower()).replace(" ", "-")
            measured = one.measured if one.met else f"**{one.measured}**"
            met = f"{sum(limit.met for limit in limits)} of {len(limits)}"
            lines.append(f"| [{what}](#{link}) | {beside} | {measured} | {one.asked} | {met} |")
    return "\n".join(lines)


def missed(tables: Mapping[str, tuple[str, list[Row]]]) -> str:
    """The rows whose median is outside their limit, folded."""
    rows = [(row, limit) for _, some in tables.values() for row in some if (limit := limit_of(row)) and not limit.met]
    if not rows:
        return ""
    lines = [f"| {row['what']} | {limit.measured} | {limit.asked} |" for row, limit in rows]
    top = ["| what | measured | asked |", "| --- | ---: | ---: |"]
    head = f'<details markdown="1">\n<summary>The {len(rows)} limits that are not met</summary>'
    return "\n\n".join([head, "\n".join([*top, *lines]), "</details>"])


def limits_of(rows: list[Row]) -> Iterator[Limit]:
    """Of all rows that have one."""
    yield from filter(None, map(limit_of, rows))


def limit_of(row: Row) -> Limit | None:
    """Of one row; None where nothing, or no bound, was asked. A limit with a unit is one of ours, not of the ratio."""
    found = re.match(r"(<=|>=|≤|≥) ([\d,.]*\d)( [a-zA-Z]+)?", str(row.get("asked", "")))
    if not found:
        return None
    bound, most, unit = found.groups()
    value = str(row["ours"] if unit or not row.get("ratio") else row["ratio"])
    number = re.match(r"[\d,.]+[\d]", value)
    assert number, f"{row['what']}: {value} is no number"
    ratio = _float(number[0]) / _float(most)
    least = bound in (">=", "≥")
    asked = f"{'≥' if least else '≤'} {most}{unit or ''}"
    return Limit(value.partition(", of which")[0], asked, 1 / ratio if least else ratio)


def draw(tables: Mapping[str, tuple[str, list[Row]]], path: Path) -> Path:
    """Each limit of each section as a dot, at what was measured over it (its inverse for a least): left of 1 is met."""
    from matplotlib.figure import Figure

    from modulant.reports.drawing.plotting import BLUE, INK, VERMILION, dress, save

    names = [name for name in TITLES if name in tables and any(limits_of(tables[name][1]))]
    figure = Figure(figsize=(8.6, 0.34 * len(names) + 1.3), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    for y, name in enumerate(names):
        for limit in limits_of(tables[name][1]):
            colour, shape = (BLUE, "o") if limit.met else (VERMILION, "D")
            axis.plot(limit.share, y, shape, color=colour, alpha=0.75, markersize=6, markeredgewidth=0)
    axis.axvline(1, color=INK, linewidth=1.2)
    dress(axis, "Measured over limit: met left of the line (dots), not met right of it (diamonds)", "", "", grid="x")
    axis.set_yticks(range(len(names)), [TITLES[name].partition(",")[0].partition(":")[0] for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    ticks = [0.1, 0.2, 0.5, 1, 2]
    axis.set_xticks(ticks, [f"{tick:g} ×" for tick in ticks])
    axis.minorticks_off()
    return save(figure, path)


def file_of(name: str) -> Path:
    """The file that measures a section: NAME.py in one of the rooms."""
    (file,) = (ROOT / "benchmarks").glob(f"*/{name}.py")
    return file


def _about(name: str) -> str:
    """`ABOUT` of a benchmark: read, as importing all of them takes seconds."""
    tree = ast.parse(file_of(name).read_text(encoding="utf-8"))
    pairs = [(node.targets[0], node.value) for node in tree.body if isinstance(node, ast.Assign)]
    return str(next(ast.literal_eval(value) for target, value in pairs if ast.unparse(target) == "ABOUT"))


def _float(text: str) -> float:
    return float(text.replace(",", ""))
