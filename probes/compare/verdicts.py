"""How each claim is judged: by a function of what reports hold of a model.

A figure is beyond its null at 5% over all claims (Bonferroni); where no p exists, a limit is named here and in the
sentence. What any weights have by a theorem cannot hold beyond its null.
"""

import math
from dataclasses import dataclass

from scipy import stats

from modulant.reports.wording import number
from probes.compare.reading import Absent, Model, Null
from probes.terrain.page import CLEAR, COARSE
from probes.wording import p_value

NOTHING, HOLDS, NOT_MEASURED = "nothing", "holds", "not measured"
LEVEL, TESTS = 0.05, 10  # of all claims together; their number
GAUSSIAN = math.erf(0.1 / math.sqrt(2))  # share of a normal variable's values below a tenth of its rms
SPARSE = 2.0  # times that: what would be called sparse
COLLAPSE = 0.1  # drop of entropy, of its maximum, from one layer to the next
_BUCKETS, _LOCAL = 32, 3  # distances of a T5 with a bias of their own; those at either end are not mixed
_PLACES = ("encoder", "decoder", "text", "vision")


@dataclass(frozen=True)
class Verdict:
    """What becomes of a claim for one model.

    Attributes:
        kind: `NOTHING` (it comes of something simpler, is nothing beyond its null, or is not so), `HOLDS` (beyond its
            null), `NOT_MEASURED`.
        measured: the source's own figure, as measured here.
        null: what stands beside it.
        said: the verdict in a sentence, with its numbers.
    """

    kind: str
    measured: str
    null: str
    said: str

    def as_json(self) -> dict[str, str]:
        return {"verdict": self.kind, "measured": self.measured, "null": self.null, "said": self.said}


def volumes(model: Model) -> Verdict:
    cv, null = model.need("terrain", "pentachoron/cv"), model.null("terrain", "pentachoron/cv")
    unit, unit_null = model.need("terrain", "pentachoron/cv_unit"), model.null("terrain", "pentachoron/cv_unit")
    measured, beside = f"CV {number(cv, 3)}", f"Gaussian rows, same covariance: {_with_sd(null)}"
    lengths = f"with rows of length 1 {number(unit, 3)}, null {number(unit_null.mean, 3)}"
    if not _far(cv, null):
        return Verdict(
            NOTHING, measured, beside, f"follows from the covariance: {number(null.mean, 3)} without a model"
        )
    if not 0.20 <= cv <= 0.23:
        return Verdict(NOTHING, measured, beside, f"not so: {number(cv, 3)} is outside of 0.20 to 0.23; {lengths}")
    if not _far(unit, unit_null):
        return Verdict(NOTHING, measured, beside, f"follows from the spread of lengths: {lengths}")
    return Verdict(HOLDS, measured, beside, f"holds beyond its null: {number(cv, 3)} is in 0.20 to 0.23; {lengths}")


def sparsity(model: Model) -> Verdict:
    place = _place(model, "self_q/{}/below_0.1")
    share, null = _topology(model, f"self_q/{place}/below_0.1"), _topology_null(model, f"self_q/{place}/below_0.1")
    free, keys = (_topology(model, f"self_{kind}/{place}/below_0.1_rms") for kind in "qk")
    measured, beside = f"{_percent(share)} of W_q below 0.1", f"Gaussians of the same rms: {_percent(null.mean)}"
    scale = (
        f"below a tenth of their rms are {_percent(free)}, of keys {_percent(keys)}, of Gaussians {_percent(GAUSSIAN)}"
    )
    if free > SPARSE * max(GAUSSIAN, keys):
        return Verdict(HOLDS, measured, beside, f"holds beyond its null: {scale}")
    grown = model.reports["topology"].value(f"self_q/{place}/rms_over_init")
    size = "" if grown is None else f" ({number(grown, 2)} times the initial rms)"
    return Verdict(NOTHING, measured, beside, f"follows from the size of the entries{size}: {scale}")


def locked(model: Model) -> Verdict:
    name = "source/cross_q/decoder/positive_share"
    if not any(key.startswith("cross_") for key in model.reports["topology"].figures):
        raise Absent("it has no cross-attention")
    share, null = _topology(model, name), _topology_null(model, name)
    measured, beside = f"{number(share, 4)} positive", f"rows of the keys permuted: {number(null.mean, 4)}"
    if abs(share - null.mean) > 0.01:
        said = f"not so: {number(share, 3)} is not ½"
    else:
        said = f"follows from chance: matrices that have nothing to do with each other give {number(null.mean, 4)}"
    return Verdict(
        NOTHING, measured, beside, f"{said}; queries and keys are of two spaces, where a sign has no meaning"
    )


def layers_apart(model: Model) -> Verdict:
    if not (places := [one for one in _PLACES if f"between/self_q/{one}" in model.reports["topology"].figures]):
        raise Absent("it has no two adjacent layers that were measured")
    name = f"between/self_q/{places[0]}"
    cosine, sd = (_topology(model, f"source/{name}{end}") for end in ("", "_null_sd"))
    alike, permuted, p = _topology(model, name), _topology_null(model, name), _topology(model, f"{name}_p")
    measured, beside = f"cosine {number(cosine, 4)}", f"unrelated matrices: 0 ± {number(sd, 4)}"
    side = f"{number(alike, 3)} (coordinates permuted {number(permuted.mean, 3)}, p {p_value(p)})"
    if _beyond(p):
        said = f"follows from the choice of bases: on the side of the stream the same layers are alike, {side}"
    else:
        said = f"nothing beyond its null: on the side of the stream the layers are not alike either, {side}"
    return Verdict(NOTHING, measured, beside, said)


def boundary(model: Model) -> Verdict:
    name = "constant/0.29154"
    ratio, null = model.need("terrain", name), model.null("terrain", name)
    beside, sd = (model.need("terrain", f"constant/beside/{what}") for what in ("mean", "sd"))
    n = model.need("terrain", "constant/beside/places")
    t = (ratio - beside) / (sd * math.sqrt(1 + 1 / n)) if sd else 0.0
    p = float(stats.t.sf(t, n - 1))  # of one more place to stand out so far among the others
    measured = f"density {number(ratio, 3)} times that beside it"
    control = (
        f"{number(n, 0)} places near it: {number(beside, 3)} ± {number(sd, 3)}; Gaussian rows: {number(null.mean, 3)}"
    )
    if _beyond(p) and ratio > 1:
        return Verdict(HOLDS, measured, control, f"holds beyond its null: it stands out, p {p_value(p)}")
    return Verdict(NOTHING, measured, control, f"nothing beyond its null: it does not stand out, p {p_value(p)}")


def signs(model: Model) -> Verdict:
    place = _place(model, "source/self_qk/{}/positive_share")
    share = _topology(model, f"source/self_qk/{place}/positive_share")
    mass, null = _topology(model, f"self_qk/{place}/signed_mass"), _topology_null(model, f"self_qk/{place}/signed_mass")
    measured = f"{_percent(1 - share)} negative"
    mass_said = f"their mass is {number(mass, 3, True)} (mismatched heads {number(null.mean, 3, True)})"
    if abs(share - 0.5) < 1e-9:
        said = f"follows from Sylvester's law: as many of each sign in every head, whatever the weights; {mass_said}"
    else:
        said = f"nothing beyond its null: signs are counts of dimensions; {mass_said}"
    return Verdict(NOTHING, measured, "any two matrices of full rank: 50%", said)


def digits(model: Model) -> Verdict:
    r, p = (model.need("terrain", f"digits/{what}") for what in "rp")
    partial, partial_p = (model.need("terrain", f"digits/partial_{what}") for what in "rp")
    null = model.null("terrain", "digits/r")
    report = model.reports["terrain"]
    letters, letters_p = (report.value(f"letters/{what}") for what in "rp")
    measured = f"r {number(r, 3)}, p {p_value(p)}"
    control = f"permuted digits: {number(null.mean, 3)} ± {number(null.sd, 3)}"
    if letters is None or letters_p is None:
        said = "letters could not be measured"
    else:
        control += f"; letters: {number(letters, 3)}, p {p_value(letters_p)}"
        said = f"letters {number(letters, 3)}"
    given = f"given the difference of lengths {number(partial, 3)}, p {p_value(partial_p)}; {said}"
    if not _beyond(p) or r > 0:
        return Verdict(NOTHING, measured, control, f"nothing beyond its null: p {p_value(p)}; {given}")
    if not _beyond(partial_p) or partial > 0:
        return Verdict(NOTHING, measured, control, f"follows from the lengths of the rows: {given}")
    if letters_p is not None and _beyond(letters_p) and letters is not None and letters <= r:
        return Verdict(NOTHING, measured, control, f"follows from order alone: {given}")
    return Verdict(HOLDS, measured, control, f"holds beyond its null: {given}")


def spectra(model: Model) -> Verdict:
    name = "dimensions/concentration"
    value, null = model.need("spectra", name), model.null("spectra", name)
    p = model.need("spectra", "dimensions/p")
    measured, beside = f"concentration {number(value)}", f"dimensions permuted: {number(null.mean)}"
    if _beyond(p):
        return Verdict(HOLDS, measured, beside, f"holds beyond its null: p {p_value(p)}")
    said = "nothing beyond its null: dimensions have no order"
    return Verdict(NOTHING, measured, beside, f"{said}; p {p_value(p)}")


def crystals(model: Model) -> Verdict:
    report = model.reports["topology"]
    if not any(name.startswith("positions/decoder/") for name in report.figures):
        raise Absent("its report has no relative position biases of a decoder")
    local, far, mixed = (_topology(model, f"source/positions/decoder/{what}") for what in ("local", "global", "mixed"))
    heads = local + far + mixed
    rho = _topology(model, "positions/decoder/spearman_left")
    null = _topology_null(model, "positions/decoder/spearman_left")
    p = _topology(model, "positions/decoder/spearman_left_p")
    measured = f"{mixed:.0f} of {heads:.0f} heads mixed"
    if (others := report.value("source/positions/encoder/mixed")) is not None:
        measured += f" (encoder: {others:.0f})"
    by_chance = ends_of_walks(_BUCKETS, _LOCAL) ** heads
    control = f"curves whose steps are random: none mixed with p {p_value(by_chance)}"
    slope = f"Spearman of bias with nearness {number(rho, 2, True)} (permuted {_with_sd(null)}, p {p_value(p)})"
    if mixed:
        return Verdict(NOTHING, measured, control, f"not so: {mixed:.0f} are mixed; {slope}")
    if not _beyond(by_chance):
        return Verdict(NOTHING, measured, control, f"nothing beyond its null: p {p_value(by_chance)}; {slope}")
    if _beyond(p):
        said = f"follows from curves with a slope, whose largest value is at an end: {slope}"
        return Verdict(NOTHING, measured, control, said)
    return Verdict(HOLDS, measured, control, f"holds beyond its null: p {p_value(by_chance)}; {slope}")


def ends_of_walks(places: int, end: int) -> float:
    """Probability that a curve with independent symmetric steps is largest at one of the `end` places on either side.

    Sparre Andersen's arcsine law: at place k of n + 1 with u(k) u(n − k), u(k) = C(2k, k) / 4ᵏ.

    >>> round(ends_of_walks(32, 3), 3), ends_of_walks(2, 1)
    (0.383, 1.0)
    """
    u = [math.comb(2 * k, k) / 4**k for k in range(places)]
    return 2 * sum(u[k] * u[places - 1 - k] for k in range(end))


def beliefs(model: Model) -> Verdict:
    """Where attention collapses, and whether its coherence says how sure the model is: holds where both do."""
    halves, reasons = [], []
    for judge in (_collapse, _coherence):
        try:
            halves.append(judge(model))
        except Absent as reason:
            reasons.append(str(reason))
    if not halves:
        raise Absent(reasons[0])
    failed = any(half.kind == NOTHING for half in halves)
    kind = NOTHING if failed else NOT_MEASURED if reasons else HOLDS
    measured, null, said = ("; ".join(getattr(half, key) for half in halves) for key in ("measured", "null", "said"))
    return Verdict(kind, measured, null, "; ".join([said, *(f"the other half was not measured: {r}" for r in reasons)]))


def _collapse(model: Model) -> Verdict:
    after, drop = (model.need("attention", name) for name in ("source/collapse_layer", "collapse_without_sink/drop"))
    into = model.reports["attention"].value("collapse_without_sink/layer")
    measured = f"collapse after layer {after:.0f}"
    where = "at no layer that texts agree on" if into is None else f"after layer {into - 1:.0f}"
    control = f"without the sink the largest drop is {number(drop, 3, True)} of the maximum, {where}"
    if into == after + 1 and drop < -COLLAPSE:
        return Verdict(HOLDS, measured, control, "the collapse holds beyond its null")
    r, p = (model.reports["attention"].value(f"sink/entropy_{what}") for what in "rp")
    if r is not None and p is not None and r < 0 and _beyond(p):
        said = f"follows from the sink: entropy falls where it grows, r {number(r, 2)} over layers, p {p_value(p)}"
    else:
        said = f"no collapse: without the sink there is no drop of {COLLAPSE:g} of the maximum after that layer"
    return Verdict(NOTHING, measured, control, said)


def _coherence(model: Model) -> Verdict:
    r, p = (model.need("attention", f"confidence/coherence/{what}") for what in ("partial_r", "p_family"))
    few = model.need("attention", "confidence_15/coherence/r")
    measured = f"coherence with confidence, 15 prompts: r {number(few, 2, True)}"
    control = f"more texts, given their length: r {number(r, 2, True)}, p {p_value(p)} (the largest permuted)"
    if _beyond(p) and r * few > 0:
        return Verdict(HOLDS, measured, control, f"coherence as confidence holds beyond its null, p {p_value(p)}")
    turned = ", and its sign changes" if r * few < 0 else ""
    said = f"coherence as confidence is nothing beyond its null: p {p_value(p)}{turned}"
    return Verdict(NOTHING, measured, control, said)


def _beyond(p: float) -> bool:
    return p * TESTS < LEVEL


def _far(value: float, null: Null) -> bool:
    """Whether a CV of volumes is beyond what its null's draws, and its own, can tell apart."""
    return abs(value - null.mean) > max(COARSE, CLEAR * (null.sd or 0.0))


def _topology(model: Model, name: str) -> float:
    return model.need("topology", name)


def _topology_null(model: Model, name: str) -> Null:
    return model.null("topology", name)


def _place(model: Model, name: str) -> str:
    """The first stack of which a figure of weights was measured."""
    report = model.reports["topology"]
    found = [place for place in _PLACES if report.value(name.format(place)) is not None]
    if not found:
        raise Absent(f"its report has no `{name.format('encoder')}`, nor of another stack")
    return found[0]


def _with_sd(null: Null) -> str:
    return number(null.mean, 3) + ("" if null.sd is None else f" ± {number(null.sd, 3)}")


def _percent(share: float) -> str:
    return f"{number(100 * share, 2)}%"
