"""The page of spectra: every figure beside its nulls, what they say, and how it was measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.table import Table
from modulant.reports.wording import counted, number, with_interval
from probes.spectra.charts import charts, clouds_of, places_of, words_of
from probes.spectra.heads import BANDS
from probes.spectra.texts import LEAST, PROMPTS
from probes.wording import closing, null_of, p_value, value_of

__all__ = ["charts", "content"]

Found = Mapping[str, Any]  # what report.json holds

_ALPHA = 0.05
NOTHING = "nothing beyond its null"


def content(found: Found) -> dict[str, Any]:
    """What report.md and report.html say."""
    shape = found["shape"]
    lead = f"{found['architecture']}, width {shape['d_model']:,}, {shape['layers']} layers, "
    lead += f"seed {found['settings']['seed']}."
    if texts := found["texts"]:
        lengths = texts["tokens"]
        lead += f" Texts: {texts['what']}"
        if lengths:
            lead += f"; {counted(len(lengths), 'text')} of {min(lengths):,} to {max(lengths):,} tokens"
        lead += "".join(f"; {note}" for note in texts["notes"]) + "."
    if found["interrupted"]:
        lead += " Interrupted: what was done until then is here, the rest is not."
    sections: dict[str, Table] = {}
    verdicts: list[str] = []
    for cloud in clouds_of(found["figures"]):
        said = words_of(cloud)
        verdicts += [line.replace("**:", f"{said}**:", 1) for line in _verdicts(found, cloud)]
        sections |= {
            f"Order of tokens{said}": _token_table(found, cloud, ""),
            f"Order of tokens of length 1{said}": _token_table(found, cloud, "unit/"),
            f"Spectra along tokens{said}": _spectrum_table(found, cloud),
            f"Phases of heads{said}": _head_table(found, cloud),
            f"FFT over dimensions{said}": _dimension_table(found, cloud),
            f"The lens, synthetic: a prior of ours, not the model's{said}": _lens_table(found, cloud),
        }
    return {
        "title": f"{found['model']}: spectra",
        "lead": lead,
        "finding": _finding(found),
        "verdicts": verdicts,
        "sections": {title: table for title, table in sections.items() if table},
        "method": _method(found),
    }


def _finding(found: Found) -> str:
    """Whether the order of words shows in the states of tokens, in one sentence."""
    figures, cloud = found["figures"], clouds_of(found["figures"])[-1]
    places = [f"{cloud}{p}/lag1" for p in places_of(figures, cloud) if figures.get(f"{cloud}{p}/lag1") is not None]
    if not places:
        return "No states along a text were measured, so nothing is said of the order of tokens."
    ordered, own = (
        sum((figures.get(f"{at}{p}") or 0.0) <= _ALPHA for at in places if figures.get(f"{at}{p}") is not None)
        for p in ("_p_family", "_beyond_input_p_family")
    )
    return (
        f"States of neighbouring tokens are related beyond chance in {ordered} of {counted(len(places), 'place')} (the "
        f"input, and after each layer), and in {own} beyond what the same words have in a shuffled text."
    )


def _token_table(found: Found, cloud: str, variant: str) -> Table:
    figures, rows = found["figures"], []
    for place in places_of(figures, cloud):
        at = f"{cloud}{place}/{variant}lag1"
        if figures.get(at) is None:
            continue
        rows.append(
            [
                place,
                with_interval(figures[at], found["intervals"].get(at), 3),
                null_of(found["nulls"][at]),
                number(figures[f"{at}_phase_randomised"], 3),
                number(figures[f"{at}_input_shuffled"], 3),
                with_interval(figures[f"{at}_beyond_input"], found["intervals"].get(f"{at}_beyond_input"), 3),
                _p(figures[f"{at}_p_family"]),
                _p(figures[f"{at}_beyond_input_p_family"]),
            ]
        )
    header = ["lag-1", "text", "rows shuffled", "phases randomised", "input shuffled", "text − input shuffled"]
    return Table([*header, "p, rows", "p, input"], rows)


def _spectrum_table(found: Found, cloud: str) -> Table:
    figures, rows = found["figures"], []
    names = ("slope", "flatness", "centroid", "slow_share")
    for place in places_of(figures, cloud):
        cells = [figures.get(f"{cloud}{place}/{name}") for name in names]
        if cells[0] is not None:
            beside = [figures[f"{cloud}{place}/{name}_input_shuffled"] for name in names]
            nulls = [found["nulls"][f"{cloud}{place}/{name}"]["mean"] for name in names]
            rows.append(
                [
                    place,
                    *(
                        f"{number(a, 3)} ({number(b, 3)}, {number(c, 3)})"
                        for a, b, c in zip(cells, beside, nulls, strict=True)
                    ),
                ]
            )
    header = ["text (input shuffled, rows shuffled)", "slope", "flatness", "centroid", "share below 0.05"]
    return Table(header, rows)


def _head_table(found: Found, cloud: str) -> Table:
    figures, rows = found["figures"], []
    places = ["heads", *(f"{place}/heads" for place in places_of_heads(figures, cloud))]
    for place in places:
        row = ["mean over layers" if place == "heads" else place.removesuffix("/heads")]
        for band in BANDS:
            at = f"{cloud}{place}/{band}"
            if figures.get(f"{at}/ppc") is None:
                row.append("–")
                continue
            beside = ", ".join(number(figures[f"{at}/ppc_{key}"], 3) for key in ("input_shuffled", "surrogate"))
            row.append(f"{number(figures[f'{at}/ppc'], 3)} ({beside})")
        row.append(value_of(figures.get(f"{cloud}{place}/cosine")))
        rows.append(row)
    return Table(["PPC: text (input shuffled, surrogates)", *BANDS, "cosine of outputs"], rows if len(rows) > 1 else [])


def places_of_heads(figures: Mapping[str, Any], cloud: str) -> list[str]:
    """``layer_00`` … whose heads were measured."""
    matches = (re.fullmatch(rf"{cloud}(layer_\d+)/heads/cosine", name) for name in figures)
    return [match[1] for match in matches if match]


def _dimension_table(found: Found, cloud: str) -> Table:
    run, stack = cloud.removesuffix("decoder/"), "decoder/" if cloud.endswith("decoder/") else ""
    ours = re.compile(rf"{cloud}dimensions/\w+|{run}source/{stack}layer_\d+/\w+")
    rows = []
    for name, value in found["figures"].items():
        if ours.fullmatch(name):
            null = found["nulls"].get(name)
            rows.append([name, null["what"] if null else "", value_of(value), null_of(null)])
    return Table(["figure", "null is", "value", "null"], rows, words=2)


def _lens_table(found: Found, cloud: str) -> Table:
    figures, rows = found["figures"], []
    for name in figures:
        if name.startswith(f"{cloud}lens/") and name.endswith("/range") and figures[name] is not None:
            at = name.removesuffix("/range")
            for prompt in PROMPTS:
                key = f"{at}/{prompt}/coherence"
                cells = [
                    value_of(figures[key]),
                    null_of(found["nulls"][key]),
                    value_of(figures[f"{key}_reversed"]),
                ]
                rows.append([at.rpartition("/")[2], prompt, *cells])
    return Table(["layer", "prompt", "our frequencies", "dealt to other tokens", "reversed"], rows, words=2)


def _verdicts(found: Found, cloud: str) -> list[str]:
    """A line for each part, which names its null."""
    figures, lines = found["figures"], []
    if figures.get(f"{cloud}dimensions/p") is not None:
        value, p = figures[f"{cloud}dimensions/concentration"], figures[f"{cloud}dimensions/p"]
        null = null_of(found["nulls"][f"{cloud}dimensions/concentration"])
        said = f"{NOTHING} (dimensions permuted)" if p > _ALPHA else "not that of permuted dimensions"
        lines.append(f"**FFT over dimensions**: {said}: concentration {number(value)}, null {null}, p {p_value(p)}.")
    if places := [place for place in places_of(figures, cloud) if figures.get(f"{cloud}{place}/lag1") is not None]:
        lines += _order_verdicts(found, cloud, places)
    for_heads = [band for band in BANDS if figures.get(f"{cloud}heads/{band}/ppc") is not None]
    if for_heads:
        each = ", ".join(
            f"{band} {number(figures[f'{cloud}heads/{band}/ppc'], 3)} "
            f"({number(figures[f'{cloud}heads/{band}/ppc_input_shuffled'], 3)}, "
            f"{number(figures[f'{cloud}heads/{band}/ppc_surrogate'], 3)})"
            for band in for_heads
        )
        lines.append(
            f"**Phases of heads**: PPC by band, in brackets with the text's tokens shuffled, and of surrogates: {each}."
            " Heads of a layer read one stream, so more than surrogates have is expected; only what goes beyond "
            "shuffled tokens is about the text."
        )
    if tests := [name for name in figures if re.fullmatch(rf"{cloud}lens/\w+/p", name) and figures[name] is not None]:
        beyond = [name.split("/")[-2] for name in tests if figures[name] <= _ALPHA / len(tests)]
        null = "our frequencies dealt to other tokens"
        if beyond:
            said = f"in {', '.join(beyond)} prompts are further apart than with {null}"
        else:
            said = f"{NOTHING} ({null}): the difference between prompts is within it in every layer"
        each = ", ".join(f"{name.split('/')[-2]} p {p_value(figures[name])}" for name in tests)
        lines.append(f"**The lens, a prior of ours and not the model's**: {said}; {each}.")
    return lines


def _order_verdicts(found: Found, cloud: str, places: Sequence[str]) -> list[str]:
    figures = found["figures"]
    at = {place: f"{cloud}{place}/lag1" for place in places}
    ordered = [place for place in places if figures[f"{at[place]}_p_family"] <= _ALPHA]
    said = f"beyond its null in {len(ordered)} of {len(places)} places" if ordered else NOTHING
    lines = [
        f"**Order of tokens**: lag-1 is {said} (rows shuffled, p over all places at once): "
        f"{_ends(figures, at, places, '')}."
    ]
    p, measured = "_beyond_input_p_family", found["populations"][f"{cloud}{places[0]}/lag1"]
    n = int(measured.partition(" ")[0])  # fewer than there are, after Ctrl-C
    if n == 1:
        return [*lines, "**What of it is the text's**: not told from a single text; shuffled tokens give "
                f"{_ends(figures, at, places, '_input_shuffled')}."]  # fmt: skip
    more = [place for place in places if figures[at[place] + p] <= _ALPHA]
    signs = {
        word: [place for place in more if (figures[f"{at[place]}_beyond_input"] > 0) == above]
        for word, above in (("above", True), ("below", False))
    }
    told = "; ".join(f"{word} it in {_some(some)}" for word, some in signs.items() if some) or NOTHING
    least = 2 ** (1 - n)
    weak = f" {n} texts cannot give a p below {number(least, 3)}." if least > _ALPHA / 2 else ""
    lines.append(
        f"**What of it is the text's**: lag-1 against the same text with its tokens shuffled before the pass, "
        f"{_ends(figures, at, places, '_input_shuffled')}: {told} (signs of {measured} turned, p over all places at "
        f"once).{weak} What shuffled tokens have too is the model's and the positions' own drift."
    )
    return lines


def _ends(figures: Mapping[str, Any], at: Mapping[str, str], places: Sequence[str], way: str) -> str:
    """The first and the last of some places."""
    return ", ".join(
        f"{place} {number(figures[at[place] + way], 3)}" for place in dict.fromkeys((places[0], places[-1]))
    )


def _some(places: Sequence[str]) -> str:
    return ", ".join(places[:3]) + (f" … {places[-1]} ({len(places)})" if len(places) > 3 else "")


def _p(p: float | None) -> str:
    return "–" if p is None else p_value(p)


def _method(found: Found) -> list[str]:
    lines = []
    if found["texts"]:
        lines += [
            "Rows are states of the stream after a block, before any final norm, one a token; the first token and "
            "special ones are left out, since an attention sink would be an impulse. Mean and linear trend are taken "
            f"away. A text has at least {LEAST} tokens. `embedded` is before the first block. `decoder/` is of a T5's "
            "decoder, which reads the text behind its start token, beside what the encoder makes of the same text; the "
            "same tokens are measured, and shuffled for both.",
            "Spectra: four sine tapers, summed over dimensions, on one grid of frequencies; each text's mean power is "
            "1. Slope is of ln S over ln f, flatness geometric over arithmetic mean. Intervals are 95% of a bootstrap "
            "over texts.",
            "Nulls: *rows shuffled* has no order at all; *input shuffled* is the same text with its tokens in another "
            "order before the pass, the first and special ones in place; *phases randomised* keeps all circular auto- "
            "and cross-spectra, so it agrees by construction with figures of second order, as all of these are.",
            "Heads: first principal component of what a head adds to the stream, in a band, its edges of one longest "
            "period left out; PPC over pairs of heads. Surrogates have every head's phases randomised by themselves; "
            "their mean is not 0, as a narrow band has few independent samples.",
        ]
    if any("dimensions/" in name for name in found["figures"]):
        lines.append(
            "FFT over dimensions: of permuted dimensions the expected power is the same at every frequency, so such a "
            "spectrum says the variance, and how much of it one large dimension has. `source/` holds concentration and "
            "interference as they were published, of states averaged by attention, the first token's included; "
            "interference cannot be above 1, by Jensen's inequality."
        )
    if any("lens/" in name for name in found["figures"]):
        lines.append(
            "The lens is synthetic. A word's frequency, 0.5 to 10 Hz, is by its token's place in the vocabulary (the "
            "tokenizer's order, common ones first in most); waves are superposed by the last token's attention. It is "
            "a function of attention and of frequencies that we chose."
        )
    return [*lines, *closing(found, f"{found['sha256'][:16]}…")]
