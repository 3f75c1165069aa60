"""The page of a wave model: what the nulls say, every figure beside its null, and how it was measured."""

import re
from collections.abc import Mapping
from typing import Any

from modulant.reports.table import Table
from modulant.reports.wording import interval, number
from probes.waveforms.charts import heads_of
from probes.wording import null_of, p_value, value_of

Found = Mapping[str, Any]  # what report.json holds

_ALPHA = 0.05
_KINDS = ("untrained/", "baseline/")


def content(found: Found) -> dict[str, Any]:
    """What report.md and report.html say."""
    settings = found["settings"]
    about = f"embedding {settings['embedding']['kind']}, attention {settings['attention']['kind']}"
    shape = found["shape"]
    lead = (
        f"{about}; width {shape['d_model']}, {shape['layers']} layers, {shape['heads']} heads, context "
        f"{shape['context']}; seed {settings['seed']}. Texts: {found['texts']}. Baseline: {found['baseline']}."
    )
    sections = {
        "Harmonics": _harmonics(found),
        "Fringes": _fringes(found),
        "Stability": _plain(found, "stability/"),
        "Use of its parts": _plain(found, "usage/"),
    }
    return {
        "title": f"{found['model']}: waveforms",
        "lead": lead,
        "verdicts": _verdicts(found),
        "sections": {title: table for title, table in sections.items() if table},
        "method": _method(found),
    }


def _harmonics(found: Found) -> Table:
    figures, rows = found["figures"], []
    for name in figures:
        if (match := re.fullmatch(r"harmonics/(.+)/sum", name)) and figures[name] is not None:
            at = f"harmonics/{match[1]}"
            rows.append([
                match[1], value_of(figures[name]), null_of(found["nulls"][name]), value_of(figures.get(f"{at}/period")),
                _p(figures[f"{at}/p"]), *(_p(figures.get(f"{kind}{at}/p")) for kind in _KINDS),
            ])  # fmt: skip
    return Table(["place", "harmonic sum", "surrogates", "period", "p", "p, untrained", "p, baseline"], rows)


def _fringes(found: Found) -> Table:
    figures, rows = found["figures"], []
    for layer, head in heads_of(found):
        at = f"fringes/layer_{layer:02d}/head_{head:02d}"
        row = [f"layer {layer}, head {head}"]
        for kind in ("", *_KINDS):
            peak, period = (figures.get(f"{kind}{at}/{what}") for what in ("peak", "period"))
            row.append("–" if peak is None else f"{number(peak, 3)} ({number(period, 1)})")
            row.append(_p(figures.get(f"{kind}{at}/p")))
        rows.append(row)
    return Table(["peak (period)", "trained", "p", "untrained", "p", "baseline", "p"], rows)


def _plain(found: Found, group: str) -> Table:
    rows = []
    for name, value in found["figures"].items():
        if name.startswith(group) and value is not None and not name.endswith(("_low", "_high")):
            null = found["nulls"].get(name)
            low, high = (found["figures"].get(f"{name}_{end}") for end in ("low", "high"))
            ends = f" {interval((low, high), 3)}" if low is not None and high is not None else ""
            beside = [value_of(found["figures"].get(f"baseline/{name}"))] if group == "stability/" else []
            rows.append(
                [
                    name,
                    found["units"][name],
                    null["what"] if null else "",
                    value_of(value) + ends,
                    null_of(null),
                    *beside,
                ]
            )
    return Table(["figure", "unit", "null is", "value", "null", *["baseline"] * (group == "stability/")], rows, words=3)


def _p(p: float | None) -> str:
    return "–" if p is None else p_value(p)


def _verdicts(found: Found) -> list[str]:
    """A line for each part, which names its null."""
    figures, lines = found["figures"], []
    places = [name for name in figures if re.fullmatch(r"harmonics/position/\w+/p", name) and figures[name] is not None]
    few = [name for name in places if figures[name] <= _ALPHA / len(places)]
    said = f"beyond surrogates in {len(few)} of {len(places)} places" if few else "nothing beyond surrogates"
    if places:
        least = min(figures[name] for name in places)
        lines.append(f"**Harmonics along positions**: {said} (smallest p {p_value(least)}, {len(places)} tests).")
    if tau := [name for name in figures if re.fullmatch(r"harmonics/tau/\w+/p", name) and figures[name] is not None]:
        each = ", ".join(f"{name.split('/')[2]} p {p_value(figures[name])}" for name in tau)
        lines.append(f"**Harmonics along observation time**: there by construction, a control of the test: {each}.")
    fringes = {kind: _fringe_heads(found, kind) for kind in ("", *_KINDS)}
    counts = {kind: f"{sum(p <= _ALPHA / len(ps) for p in ps)} of {len(ps)}" for kind, ps in fringes.items() if ps}
    if "" in counts:
        beside = ", ".join(f"{counts[kind]} {kind.removesuffix('/')}" for kind in _KINDS if kind in counts)
        lines.append(
            f"**Fringes**: beyond permuted lags in {counts['']} heads ({beside}; p over heads by Bonferroni). Phases "
            "Ωt and RoPE have fringes by construction: only what neither the untrained model nor the baseline has is "
            "learned."
        )
    value, null = figures["stability/exponent"], found["nulls"]["stability/exponent"]["mean"]
    ends = interval((figures["stability/exponent_low"], figures["stability/exponent_high"]), 3)
    lines.append(
        f"**Stability**: a random small change grows by {number(value, 3, True)} {ends} nats a layer, untrained "
        f"{number(null, 3, True)}, baseline {number(figures.get('baseline/stability/exponent'), 3, True)}."
    )
    if (share := figures.get("usage/key_share")) is not None:
        null = found["nulls"]["usage/key_share"]["mean"]
        lines.append(
            f"**Logits**: {number(100 * share, 1)}% of their variance over keys is the key bias ΣA_k² (untrained "
            f"{number(100 * null, 1)}%), the rest the cross term."
        )
    return lines


def _fringe_heads(found: Found, prefix: str) -> list[float]:
    return [
        found["figures"][f"{prefix}fringes/layer_{layer:02d}/head_{head:02d}/p"]
        for layer, head in heads_of(found, prefix)
    ]


def _method(found: Found) -> list[str]:
    shown = found["shown"]
    lines = [
        "Harmonics: the periodogram of the detrended stream, summed over dimensions and averaged over windows, over "
        "its running median; the largest sum of ln(1 + P/B) at f, 2f, 3f. Surrogates have random phases, which leave a "
        "periodogram as it is, and their whitened powers in another order: lines stay, their places to each other do "
        "not.",
        "Along observation time the series is a token's packet over 16 of its periods.",
        "Fringes: mean attention at lags 1 … T/2 over the later half of the queries, minus a cubic in ln lag; the "
        "share of the largest peak of its periodogram, at least three periods, against permuted lags. Permuted lags "
        "have a flat spectrum: a bump that the trend misses can pass as a long period.",
        "Stability: (1/L) ln(‖Jv‖/‖v‖) at the embedded windows by forward-mode differentiation, Gaussian v, 95% of a "
        "bootstrap over windows and directions. The final norm is not in it.",
        "Shares: covariance of a part with the logits over their variance, over the keys that a query sees.",
        f"Sentence: “{''.join(shown['sentence']).replace('␣', ' ').strip()}”.",
        "“Untrained” is the same configuration with the weights that its seed gives; what is drawn is in tensors.npz.",
    ]
    lines += [f"`{name}` does not apply: {why}." for name, why in list(found["reasons"].items())[:16]]
    lines.append(f"{found['seconds']:.1f} s on {found['device']}.")
    return lines
