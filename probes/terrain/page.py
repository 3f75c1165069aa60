"""The page of a terrain: every figure beside its null, what the nulls say, and how it was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.table import Table
from modulant.reports.wording import counted, number, with_interval
from probes.terrain.charts import charts, clouds_of, layers_of
from probes.wording import closing, null_of, p_value, value_of

__all__ = ["charts", "content"]

Found = Mapping[str, Any]  # what report.json holds

CLEAR, COARSE = 3.0, 0.02  # sd of a null; and what 20,000 pentachora cannot tell apart
_SECTIONS = {
    "Lengths, angles, spectrum": ("rows", "norm", "cosine", "cosine_centred", "squared_distance", "spectrum"),
    "Head": ("head",),
    "Pentachora": ("pentachoron",),
    "Order": ("digits", "digits_plain", "letters", "letters_upper", "letters_k_t", "number_words", "months"),
    "Categories": ("categories", "source"),
    "Constants": ("constant",),
}
_COLUMNS = {
    "norm": "norm",
    "norm_without_first": "norm without first",
    "cosine_within": "cosine within",
    "anisotropy": "anisotropy",
    "cosine_within_centred": "within, centred",
    "participation_ratio": "PR",
    "participation_ratio_unbiased": "PR unbiased",
    "top_dimension_share": "top dimension",
}


def content(found: Found) -> dict[str, Any]:
    """What report.md and report.html say."""
    shape = found["shape"]
    seed = found["settings"]["seed"]
    lead = f"{found['architecture']}, width {shape['d_model']:,}, {shape['layers']} layers, seed {seed}."
    if rows := found.get("rows"):
        out = {what: count for what, count in rows.items() if what not in ("matrix", "measured") and count}
        left = ", ".join(f"{count:,} {what}" for what, count in out.items())
        lead += f" {rows['measured']:,} of {rows['matrix']:,} rows are measured{f'; left out: {left}' if left else ''}."
    sections = {title: _table(found, groups) for title, groups in _SECTIONS.items()}
    sections |= {
        f"Layers{f', {cloud}' if cloud else ''}": _layer_table(found, cloud) for cloud in clouds_of(found["figures"])
    }
    sections["Encoder and decoder"] = _table(found, (), "encoder_decoder/")
    if special := found.get("special_tokens"):
        columns = {"norm": "norm", "distance_to_mean": "distance to mean / √tr Σ"}
        columns |= {"cosine_with_others": "cosine with the others", "percentile": "percentile of norms"}
        rows = [[row["token"], *(value_of(row[key]) for key in columns)] for row in special[:12]]
        sections["Special tokens"] = Table(["", *columns.values()], rows)
    return {
        "title": f"{found['model']}: terrain",
        "lead": lead,
        "finding": _finding(found),
        "verdicts": _verdicts(found),
        "sections": {title: table for title, table in sections.items() if table},
        "method": _method(found),
    }


def _table(found: Found, groups: Sequence[str], holding: str = "") -> Table:
    """Figures of some groups, or whose names hold a text."""
    rows = []
    for name, value in found["figures"].items():
        group = name.partition("/")[0]
        if (group in groups or (holding and holding in name)) and group not in found["reasons"]:
            null = found["nulls"].get(name)
            what = null["what"] if null else ""
            rows.append([name, found["units"].get(name, ""), what, value_of(value), null_of(null)])
    return Table(["figure", "unit", "null is", "value", "null"], rows, words=3)


def _layer_table(found: Found, cloud: str) -> Table:
    prefix = f"{cloud}/" if cloud else ""
    rows = []
    for layer in layers_of(found["figures"], cloud):
        rows.append([layer, *(value_of(found["figures"].get(f"{prefix}{layer}/{key}")) for key in _COLUMNS)])
    return Table(["", *_COLUMNS.values()], rows)


def _finding(found: Found) -> str:
    """What the vocabulary has that chance would not give it, in one sentence."""
    figures, parts = found["figures"], []
    if (p := figures.get("categories/p")) is not None:
        parts.append("words of one category lie " + ("nearer together" if p <= 0.05 else "no nearer together"))
    if lists := [figures[f"{name}/p"] for name in _SECTIONS["Order"] if figures.get(f"{name}/p") is not None]:
        shown = sum(p <= 0.05 / len(lists) for p in lists)
        parts.append(f"{shown} of {counted(len(lists), 'list')} such as digits and months show their order")
    cv, null = figures.get("pentachoron/cv"), found["nulls"].get("pentachoron/cv")
    if cv is not None and null is not None:
        beyond = abs(cv - null["mean"]) > max(COARSE, CLEAR * null["sd"])
        parts.append(f"volumes of five points {'differ' if beyond else 'do not differ'}")
    if not parts:
        return f"Nothing of {found['model']} was measured here that chance could be held against: see the layers."
    return f"Beside rows without structure, in the vocabulary of {found['model']}: {'; '.join(parts)}."


def _verdicts(found: Found) -> list[str]:
    """A line for each claim, which names its null."""
    figures, lines = found["figures"], []
    cv, null = figures.get("pentachoron/cv"), found["nulls"].get("pentachoron/cv")
    if cv is not None and null is not None:
        beyond = abs(cv - null["mean"]) > max(COARSE, CLEAR * null["sd"])
        said = "differs from" if beyond else "is not told apart from"
        lines.append(
            f"**Pentachora**: the CV of {number(cv, 3)} {said} that of Gaussian rows of the same covariance, "
            f"{number(null['mean'], 3)}. With all rows of length 1 it is {number(figures['pentachoron/cv_unit'], 3)}."
        )
    lists = [name for name in _SECTIONS["Order"] if figures.get(f"{name}/p") is not None]
    if lists:
        each = ", ".join(
            f"{name} {_with_ends(figures, f'{name}/r')} (p {p_value(figures[f'{name}/p'])})" for name in lists
        )
        lines.append(
            f"**Order**: correlation of cosine with distance in the list, against permuted items: {each}. "
            f"{len(lists)} tests; p is of each alone. Letters are a control: they have an order and no magnitude."
        )
    if figures.get("categories/gap") is not None:
        null, p = found["nulls"]["categories/gap"], figures["categories/p"]
        said = "nearer to each other than" if p <= 0.05 else "not told apart from"
        lines.append(
            f"**Categories**: words of one list are {said} those of permuted lists: gap "
            f"{_with_ends(figures, 'categories/gap')}, null {number(null['mean'], 3)} ± {number(null['sd'], 3)}, "
            f"p {p_value(p)}."
        )
    if figures.get("head/cosine") is not None:
        null = found["nulls"]["head/cosine"]["mean"]
        lines.append(
            f"**Head**: a matrix of its own. A token's row there and its embedding have the cosine "
            f"{number(figures['head/cosine'], 3)}, two tokens' {number(null, 3)}; a rotation between both would leave "
            "nothing of it, and `probe.py scales` finds one."
        )
    if (cka := figures.get("encoder_decoder/last/cka")) is not None:
        null = found["nulls"]["encoder_decoder/last/cka"]
        random = figures.get("random/encoder_decoder/last/cka")
        lines.append(
            f"**Encoder and decoder**: after their last layers the states of a token have the CKA {number(cka, 3)}, of "
            f"tokens at random {number(null['mean'], 3)} ± {number(null['sd'], 3)}"
            f"{'' if random is None else f', of random weights {number(random, 3)}'}."
        )
    constants = [name for name in figures if name in found["nulls"] and name.startswith("constant/")]
    constants = [name for name in constants if figures[name] is not None]
    if constants:
        each = ", ".join(
            f"{name.partition('/')[2]}: {number(figures[name], 3)} ({number(found['nulls'][name]['mean'], 3)})"
            for name in constants
        )
        lines.append(
            "**Constants**: density of cosines at each over that beside it, and in brackets that of Gaussian rows: "
            f"{each}. 1 means that nothing is there."
        )
    return lines


def _method(found: Found) -> list[str]:
    lines = []
    if "rows" in found:
        lines += [
            "Cosines and squared distances are exact over all pairs, spectra over all rows, in fp64. Pentachora, "
            "constants and their Gaussian clouds are samples. ± of a null is over its draws, their number in brackets.",
            "A list is measured if each of its words is one token. p of an order permutes the words (Mantel); "
            "`partial_r` takes away what the difference of their lengths explains; in brackets is the middle 95% "
            "of 1,000 resamples of the words. Lists of categories are permuted over the same words. `source/` holds a "
            "figure as published elsewhere, not controlled for frequency.",
        ]
    if found.get("inputs"):
        lines.append(
            f"Layers: {found['inputs']}. States are outputs of the blocks, before a final norm; `embedded` is before "
            "the first. All but `norm` leave out the first token of each text. Anisotropy is the mean cosine of tokens "
            "of two texts. `random` is the same architecture with random weights."
        )
    if any("encoder_decoder/" in name for name in found["figures"]):
        lines.append(
            "A decoder reads the texts of its encoder, shifted right by its start token, and each token is compared "
            "with itself; CKA is unbiased, of at most 1,500 tokens. `embedded` is before the first blocks, whose "
            "embeddings are the same."
        )
    left = [f"No figures of a vocabulary: {found['left_out']}."] if found.get("left_out") else []
    return [*lines, *closing(found, f"{found['sha256'][:16]}…", *left)]


def _with_ends(figures: Mapping[str, float | None], name: str) -> str:
    """A figure and its interval."""
    low, high = (figures.get(f"{name}_{end}") for end in ("low", "high"))
    return with_interval(figures[name], None if low is None or high is None else (low, high), 3, signed=False)
