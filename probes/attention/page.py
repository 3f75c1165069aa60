"""The page of attention: each figure beside its null, what the nulls say, and how it was measured."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.table import Table
from modulant.reports.wording import number, with_interval
from probes.attention.charts import CLOUDS, STACKS, charts, place_of, stack_of_lens
from probes.attention.confidence import FIGURES, PERMUTED
from probes.wording import closing

__all__ = ["charts", "content"]

Found = Mapping[str, Any]  # what report.json holds

LEVEL = 0.05
_ENOUGH = 100  # texts, to say anything of confidence
_COLUMNS = {
    "entropy": "entropy",
    "entropy_without_sink": "without sink",
    "sink": "sink",
    "sink_rate": "sink rate",
    "distance": "distance",
    "spread": "spread",
    "head_divergence": "divergence",
    "mass_special": "special",
    "top_own": "top is own",
}
_CONTROLS = {
    "model": "the model",
    "shuffled": "words shuffled",
    "permuted": "keys permuted",
    "uniform": "uniform",
    "dirichlet": "Dirichlet(1)",
    "sink_dirichlet": "the sink and Dirichlet(1)",
}
_KEYS = (
    "entropy",
    "entropy_without_sink",
    "sink",
    "sink_rate",
    "distance",
    "spread",
    "head_divergence",
    "coherence",
    "head_sync",
)


def content(found: Found) -> dict[str, Any]:
    """What report.md and report.html say."""
    shape = found["shape"]
    heads = f"{shape['heads']} heads"
    if shape["key_value_heads"] != shape["heads"]:
        heads += f" ({shape['key_value_heads']} of keys and values)"
    lead = f"{found['architecture']}, {shape['layers']} layers of {heads}; {found['inputs']}; "
    lead += f"seed {found['settings']['seed']}."
    if found["interrupted"]:
        lead += " Ended by Ctrl-C: what was read before is shown."
    sections = {"Attention that says nothing": _controls(found)}
    for cloud, (label, *_) in CLOUDS.items():
        for stack, words in STACKS.items():
            title = ", ".join(part for part in (words or "by layer", label if cloud else "") if part)
            sections[title[0].upper() + title[1:]] = _layers(found, cloud, stack)
    for cloud, (label, *_) in CLOUDS.items():
        title = "What the head makes of each layer"
        sections[f"{title}, {label}" if cloud else title] = _lens(found, cloud)
    sections |= {"Modulated minus original": _differences(found), "Confidence": _confidence(found)}
    return {
        "title": f"{found['model']}: attention",
        "lead": lead,
        "finding": _finding(found),
        "verdicts": _verdicts(found),
        "sections": {title: table for title, table in sections.items() if table},
        "method": _method(found),
    }


def _beside(found: Found, name: str, digits: int = 3) -> str:
    """A figure and, in brackets, its null."""
    null = found["nulls"].get(name)
    shown = f" ({number(null['mean'], digits)})" if null else ""
    return number(found["figures"].get(name), digits) + shown


def _layers(found: Found, cloud: str, stack: str) -> Table:
    curve = found["curves"].get(cloud + stack)
    at = f"{cloud}{stack}/layer_%02d" if stack else f"{cloud}layer_%02d"
    rows = []
    for layer in curve["layers"] if curve else ():
        names = [f"{at % layer}/{key}" for key in _COLUMNS]
        if names[0] in found["figures"]:
            rows.append([str(layer), *(_beside(found, name) for name in names)])
    return Table(["layer", *_COLUMNS.values()], rows)


def _lens(found: Found, cloud: str) -> Table:
    lens, stack, rows = found["curves"].get("lens", {"after": []}), stack_of_lens(found), []
    for after in lens["after"]:
        at = f"{cloud}{stack}{place_of(after)}/lens_"
        if f"{at}entropy" in found["figures"]:
            cells = [_beside(found, f"{at}{name}") for name in ("entropy", "divergence", "unigram")]
            rows.append([str(after), *cells, number(found["figures"][f"{at}rank"], 0)])
    return Table(["layers done", "entropy", "KL(last ‖ layer)", "KL(layer ‖ unigram)", "rank of the last"], rows)


def _controls(found: Found) -> Table:
    rows = []
    for cloud, (label, *_) in CLOUDS.items():
        for whose, words in _CONTROLS.items():
            values = [found["figures"].get(f"{cloud}control/{whose}/{key}") for key in _KEYS]
            if any(value is not None for value in values):
                named = f"{label}: {words}" if cloud and whose != "model" else label if cloud else words
                rows.append([named, *(number(value, 3) for value in values)])
    return Table(["mean over layers", *(key.replace("_", " ") for key in _KEYS)], rows)


def _differences(found: Found) -> Table:
    rows = []
    for name, value in found["figures"].items():
        if name.startswith("difference/") and name.endswith(("/entropy", "/entropy_without_sink", "/sink")):
            rows.append([name.removeprefix("difference/"), with_interval(value, found["intervals"].get(name), 4, True)])
    return Table(["paired by text", "difference, 95% interval"], rows)


def _confidence(found: Found) -> Table:
    figures, rows = found["figures"], []
    for at in found["confidence"]:
        for figure in FIGURES:
            name = f"{at}/{figure}"
            r = with_interval(figures[f"{name}/r"], found["intervals"].get(f"{name}/r"), 2, True)
            rest = [number(figures[f"{name}/{key}"], 3, key == "partial_r") for key in ("partial_r", "p", "p_family")]
            rows.append([name, r, *rest])
    return Table(["last layer, against −H", "r, 95% interval", "r given ln T", "p", "p of all"], rows)


def _finding(found: Found) -> str:
    """How widely the model attends and whether the first token draws its attention, in one sentence."""
    figures = found["figures"]
    cloud = next((one for one in reversed(CLOUDS) if f"{one}control/model/entropy" in figures), "")
    entropy, sink = (figures.get(f"{cloud}control/model/{key}") for key in ("entropy", "sink"))
    even = figures.get(f"{cloud}control/uniform/sink")
    if entropy is None:
        return "Attention was measured layer by layer; no mean over layers could be set beside attention that is noise."
    said = f"On average a token spreads its attention over {number(entropy, 2)} of what would be all tokens alike"
    if sink is None or even is None:
        return f"{said}."
    more = "more" if sink > even else "no more"
    return f"{said}, and the first token draws {more} than an even share ({number(sink, 2)} beside {number(even, 2)})."


def _verdicts(found: Found) -> list[str]:
    """A line for each claim, which names its null."""
    lines = []
    for cloud, (label, *_) in CLOUDS.items():
        said = [*_sink(found, cloud), *_collapse(found, cloud), *_heads(found, cloud), *_sure(found, cloud)]
        lines += [f"{line[:2]}{label}: {line[2:]}" if cloud else line for line in said]
    return [*lines, *_changed(found)]


def _sink(found: Found, cloud: str) -> list[str]:
    figures = found["figures"]
    r, p = figures.get(f"{cloud}sink/entropy_r"), figures.get(f"{cloud}sink/entropy_p")
    sink, even = (figures.get(f"{cloud}control/{whose}/sink") for whose in ("model", "uniform"))
    lines = []
    if sink is not None and even is not None:
        rest = [figures.get(f"{cloud}control/{whose}/mass_special") for whose in ("model", "uniform")]
        more = f"; other special tokens {number(rest[0], 2)}, where even is {number(rest[1], 2)}" if rest[1] else ""
        lines.append(
            f"**Sink**: the first token has {number(sink, 2)} of the weight, where even is {number(even, 2)}{more}."
        )
    if r is not None and p is not None:
        said = "goes" if p <= LEVEL else "does not demonstrably go"
        lines.append(
            f"**Entropy and the sink**: over layers, entropy {said} with the weight on the first token: r "
            f"{number(r, 2, True)}, p {number(p, 4)} with layers permuted."
        )
    return lines


def _collapse(found: Found, cloud: str) -> list[str]:
    figures, lines = found["figures"], []
    if figures.get(f"{cloud}collapse/drop") is None:
        return []
    parts = []
    for ending, words in (("", "with the sink"), ("_without_sink", "without it")):
        at = f"{cloud}collapse{ending}"
        drop = f"{number(figures[f'{at}/drop'], 3, True)} [{number(figures[f'{at}/drop_low'], 3)}, "
        drop += f"{number(figures[f'{at}/drop_high'], 3)}]"
        if figures.get(f"{at}/layer") is None:
            parts.append(f"{words} none (the largest step is {drop})")
        else:
            places = f"{number(figures[f'{at}/low'], 0)} to {number(figures[f'{at}/high'], 0)} over texts drawn anew"
            parts.append(f"{words} into layer {number(figures[f'{at}/layer'], 0)} ({places}), by {drop}")
    lines.append(
        f"**Largest drop of entropy** (null: no drop; intervals hold for all layers at once): {'; '.join(parts)}."
    )
    before, after = (figures.get(f"{cloud}collapse/sink_{when}") for when in ("before", "after"))
    if before is not None and after is not None:
        lines.append(f"**At that drop** the sink goes from {number(before, 2)} to {number(after, 2)}.")
    return lines


def _heads(found: Found, cloud: str) -> list[str]:
    figures = found["figures"]
    own, even, noise = (
        figures.get(f"{cloud}control/{whose}/head_sync") for whose in ("model", "uniform", "sink_dirichlet")
    )
    if own is None or even is None or noise is None:
        return []
    divergence, dealt = (figures.get(f"{cloud}control/{whose}/head_divergence") for whose in ("model", "permuted"))
    return [
        f"**Synchrony of heads** as published is {number(own, 3)}; uniform attention has {number(even, 3)}, drawn "
        f"weights with the same sink {number(noise, 3)}: a value near 1 is no finding. Heads diverge by "
        f"{number(divergence, 3)} of the most that they could, and by {number(dealt, 3)} with their keys permuted."
    ]


def _sure(found: Found, cloud: str) -> list[str]:
    """What goes with confidence, against confidence permuted."""
    figures, lines = found["figures"], []
    for key, words in (("confidence", ""), ("confidence_15", " of the fifteen prompts")):
        at, curve = f"{cloud}{key}", found["confidence"].get(f"{cloud}{key}")
        if curve is None:
            continue
        p, r = figures[f"{at}/largest/p_family"], figures[f"{at}/largest/partial_r"]
        texts = len(curve["points"]["confidence"])
        most = f"the largest |r| given length of {curve['tests']} is {number(abs(r), 2)}, that of permutations "
        most += f"reaches {number(curve['threshold'], 2)} in 5%"
        if p is None or p > LEVEL:
            lines.append(f"**Confidence**{words}: nothing beyond its null ({PERMUTED}); {texts} texts, {most}.")
        else:
            best = curve["largest"]
            lines.append(
                f"**Confidence**{words}: beyond its null ({PERMUTED}): {best['figure'].replace('_', ' ')} in layer "
                f"{best['layer']}, r {number(r, 2, True)} given length, p {number(p, 4)} of all; {texts} texts, {most}."
            )
        if texts < _ENOUGH and not words:
            lines.append(f"**Few texts**: signs change between {texts} texts and many; take {_ENOUGH} or more.")
    return lines


def _changed(found: Found) -> list[str]:
    """Layers in which a modulator changes attention, of those whose interval holds no 0."""
    names = [name for name in found["intervals"] if name.startswith("difference/")]
    if not names:
        return []
    beyond = [name for name in names if found["intervals"][name][0] > 0 or found["intervals"][name][1] < 0]
    largest = sorted(beyond, key=lambda name: -abs(found["figures"][name]))[:4]
    if not largest:
        return [f"**Modulated**: nothing beyond its null (no difference) in {len(names)} intervals over texts."]
    said = ", ".join(
        f"`{name.removeprefix('difference/')}` {number(found['figures'][name], 3, True)}" for name in largest
    )
    return [
        f"**Modulated**: {len(beyond)} of {len(names)} intervals over texts hold no 0 (null: no difference; "
        f"{LEVEL:.0%} of them by chance). The largest: {said}."
    ]


def _method(found: Found) -> list[str]:
    lines = list(_METHOD)
    return [*lines, *closing(found, f"{found['sha256'][:16]}…")]


_METHOD = (
    "Entropy is −Σ a ln a over ln n, n the keys that a query may see: uniform attention has 1. Queries with one key "
    "are left out. Sink: the weight of a text's first token (of cross-attention: of its end) at the other queries; "
    "its rate is the share of heads above 0.3. Without the sink, the other keys are renormalised. A query's entropy is "
    "that of (sink, rest), and the rest's share of the entropy without it, exactly.",
    "Distance: mean distance of a key over that of the farthest; of cross-attention that to the diagonal. Spread: sd "
    "of its position over the range of keys. Divergence: Jensen–Shannon of a layer's heads over its largest value. "
    "In brackets the null: the same texts with their words shuffled (entropies, the lens), uniform attention (sink, "
    "distance, spread, special tokens), the keys of each query permuted but for the sink (divergence), a key at random "
    "(top).",
    "The largest drop has an interval for all layers at once; it is named where that does not hold 0. `source/` holds "
    "figures as published: they put positions on a circle, where the first and the last token are neighbours, and "
    "their collapse is the layer before the largest drop of any curve.",
    "Confidence is −H of the next token after the last one; of a T5 that of the decoder, which reads the text behind "
    "its start token; of what fills masks, −H of the text's last word, masked, and the last query is then that word's. "
    "p permutes it among texts of the same length; p of all is that of the largest r over every layer and figure. The "
    "lens puts each layer's stream through the final norm and the head, which was trained on the last layer alone: "
    "what it says of early ones is not what these hold. The unigram distribution is of the texts' tokens, of which "
    "those that are in no text have as much together as there are kinds of token (Witten and Bell).",
    "Attention is computed step by step for this (`eager`) and reduced layer by layer; the model's own way is set back "
    "after it. Where heads share keys and values, each head of queries is one here.",
)
