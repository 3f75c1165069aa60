"""Figures of a reading, each beside what surrogates, the untrained model and the RoPE baseline have."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modulant.geometry import bootstrap_counts, covariance, eigenvalues_of, entropy_rank, participation_ratio
from modulant.geometry.correlation import pearson_from_sums
from probes.findings import Findings, Null
from probes.waveforms.reading import Reading
from probes.waveforms.subject import Subject, shown
from wavegpt import WaveGPT
from wavegpt.attention.phases import ladder
from wavegpt.diagnostics.fringes import fringe_test
from wavegpt.diagnostics.harmonics import harmonic_test
from wavegpt.diagnostics.usage import grid, omegas, packets, rayleigh
from wavegpt.embedding import WaveEmbedding, observation_times
from wavegpt.training.losses import harmonic_divergence

UNTRAINED = "the same model untrained"
PERIODS = 16  # of a token's packet, in the test along observation time
_PHASE_ROWS = 32  # tokens whose phases are drawn
Arrays = dict[str, Any]


def place_name(place: int) -> str:
    return "embedded" if place == 0 else f"layer_{place - 1:02d}"


def measure_harmonics(reading: Reading, found: Findings, prefix: str, seed: int) -> None:
    """``harmonics/position/layer_00/p``, …: of the stream along positions, the first token left out."""
    population = f"{len(reading.states[0])} windows"
    for place, states in enumerate(reading.states):
        at = f"{prefix}harmonics/position/{place_name(place)}"
        test = harmonic_test(states[:, 1:], torch.Generator().manual_seed(seed + place))
        found.add(f"{at}/sum", test.statistic, population, "", Null("surrogates", test.surrogates.tolist()))
        found.add(f"{at}/period", 1 / test.frequency, population, "tokens")
        found.add(f"{at}/p", test.p, population)


def measure_packets(subject: Subject, tokens: dict[str, int], found: Findings, seed: int) -> None:
    """``harmonics/tau/commonest/p``, …: of tokens' packets along observation time, where they are by construction."""
    embedding = subject.model.embedding
    if not isinstance(embedding, WaveEmbedding):
        found.leave_out("harmonics/tau", ("p",), f"embedding.kind is {subject.model.config.embedding.kind}: no waves")
        return
    if embedding.about.harmonics < 3:
        found.leave_out("harmonics/tau", ("p",), f"embedding.harmonics is {embedding.about.harmonics}; it takes 3")
        return
    omega = omegas(embedding)[0]
    points = 4 * embedding.about.harmonics * PERIODS
    for name, token in tokens.items():
        times = torch.arange(points, dtype=torch.float64) / points * PERIODS * 2 * torch.pi / omega[token]
        series = packets(embedding, torch.tensor([token]), times)[0]
        test = harmonic_test(series[:, None], torch.Generator().manual_seed(seed))
        found.add(
            f"harmonics/tau/{name}/sum", test.statistic, "1 token", "", Null("surrogates", test.surrogates.tolist())
        )
        found.add(f"harmonics/tau/{name}/p", test.p, "1 token")


def measure_fringes(reading: Reading, found: Findings, prefix: str, seed: int) -> Tensor:
    """``fringes/layer_00/head_00/p``, ``…/peak``, ``…/period``; returns residuals (L, H, lags)."""
    residuals = []
    population = f"{len(reading.states[0])} windows"
    for layer, profile in enumerate(reading.profile):
        test = fringe_test(profile, torch.Generator().manual_seed(seed + layer))
        residuals.append(test.residual)
        for head in range(len(profile)):
            at = f"{prefix}fringes/layer_{layer:02d}/head_{head:02d}"
            found.add(
                f"{at}/peak", float(test.peak[head]), population, "", Null("lags permuted", [float(test.null[head])])
            )
            found.add(f"{at}/period", float(test.period[head]), population, "tokens")
            found.add(f"{at}/p", float(test.p[head]), population)
    return torch.stack(residuals)


def measure_stability(reading: Reading, found: Findings, prefix: str, untrained: Reading | None, seed: int) -> None:
    """``stability/exponent`` with its interval over texts and v, and norms by layer."""
    growth = reading.growth.double()
    L, texts, directions = growth.shape
    population = f"{texts} windows, {directions} directions each"

    def null(value: Any) -> Null | None:
        return None if untrained is None else Null(UNTRAINED, [float(value(untrained))])

    exponents = growth[-1] / L
    found.add(f"{prefix}stability/exponent", float(exponents.mean()), population, "nats a layer",
              null(lambda of: of.growth[-1].mean() / L))  # fmt: skip
    rows, columns = (bootstrap_counts(n, seed=seed + i) for i, n in enumerate((texts, directions)))
    drawn = ((rows @ exponents) * columns).sum(1) / (texts * directions)
    found.add_interval(f"{prefix}stability/exponent", drawn.tolist(), population)
    for layer in range(L):
        found.add(f"{prefix}stability/growth/layer_{layer:02d}", float(growth[layer].mean()), population, "nats",
                  null(lambda of, layer=layer: of.growth[layer].mean()))  # fmt: skip
    for place in range(L + 1):
        found.add(f"{prefix}stability/norm/{place_name(place)}", _norm(reading.states[place]), "all tokens", "",
                  null(lambda of, place=place: _norm(of.states[place])))  # fmt: skip


def _norm(states: Tensor) -> float:
    return float(states.norm(dim=-1).mean())


@torch.no_grad()
def measure_usage(subject: Subject, start: WaveGPT, readings: tuple[Reading, Reading], found: Findings) -> Arrays:
    """``usage/…``: ranks, shares of logits, frequencies, phases, amplitudes, temperatures; returns what is drawn."""
    model = subject.model
    arrays: Arrays = {}
    _ranks(model, start, found, arrays)
    _shares(model, readings, found)
    temperature = [p.exp() for name, p in model.named_parameters() if name.endswith(".log_temperature")]
    if temperature:
        arrays["temperature"] = torch.stack(temperature)
        for layer, row in enumerate(arrays["temperature"]):
            for head, value in enumerate(row):
                found.add(f"usage/layer_{layer:02d}/head_{head:02d}/temperature", float(value), "", "",
                          Null("the start", [1.0]))  # fmt: skip
    else:
        found.leave_out(
            "usage/temperature", ("mean",), f"attention.temperature is {model.config.attention.temperature}"
        )
    if len(readings[0].omega):
        for layer, (value, before) in enumerate(zip(readings[0].omega, readings[1].omega, strict=True)):
            found.add(
                f"usage/layer_{layer:02d}/omega_shift",
                float(value),
                "all tokens",
                "of Ω",
                Null(UNTRAINED, [float(before)]),
            )
    else:
        found.leave_out("usage/attention_omega", ("shift",), "attention learns no frequencies that start as a ladder's")
    if isinstance(model.embedding, WaveEmbedding) and isinstance(start.embedding, WaveEmbedding):
        _waves(subject, model.embedding, start.embedding, found, arrays)
    else:
        found.leave_out("usage/omega", ("shift",), f"embedding.kind is {model.config.embedding.kind}: no waves")
    return arrays


def _ranks(model: WaveGPT, start: WaveGPT, found: Findings, arrays: Arrays) -> None:
    """Dimensions of the embedded vocabulary, and of the wave state before its projection."""
    V = model.config.vocab_size or 0

    def rows(of: WaveGPT) -> Tensor:
        ids = torch.arange(V)[None]
        return of.embedding(ids, torch.zeros_like(ids), model.config.embedding.anneal.end, None)[0]

    clouds = {"rows": rows}
    if isinstance(model.embedding, WaveEmbedding):
        clouds["state"] = lambda of: of.embedding.state(None, None)  # type: ignore[operator]
    for name, cloud in clouds.items():
        spectra = [eigenvalues_of(covariance(cloud(of))) for of in (model, start)]
        arrays[f"singular_{name}"], arrays[f"singular_{name}_untrained"] = (values.sqrt() for values in spectra)
        for what, figure in (("participation_ratio", participation_ratio), ("entropy_rank", entropy_rank)):
            now, before = (float(figure(values)) for values in spectra)
            found.add(f"usage/{name}/{what}", now, f"{V:,} tokens", "", Null(UNTRAINED, [before]))


def _shares(model: WaveGPT, readings: tuple[Reading, Reading], found: Findings) -> None:
    """Shares of the variance of logits, over the keys that a query sees."""
    about = model.config.attention
    if about.kind != "interference" or about.terms == "cross":
        what = f"attention.kind is {about.kind}" if about.kind != "interference" else "attention.terms is cross"
        found.leave_out("usage/key_share", ("mean",), f"{what}: logits have no key bias")
        return
    now, before = (reading.shares for reading in readings)

    def add(at: str, sums: Tensor, null: Tensor) -> None:
        for i, part in enumerate(("cross", "key")):
            found.add(
                f"usage/{at}{part}_share",
                float(sums[i] / sums[2]),
                "all queries",
                "",
                Null(UNTRAINED, [float(null[i] / null[2])]),
            )

    add("", now.sum((0, 1)), before.sum((0, 1)))
    for layer in range(len(now)):
        for head in range(now.shape[1]):
            add(f"layer_{layer:02d}/head_{head:02d}/", now[layer, head], before[layer, head])


def _waves(subject: Subject, embedding: WaveEmbedding, start: WaveEmbedding, found: Findings, arrays: Arrays) -> None:
    """Frequencies, phases and amplitudes of the embedding."""
    about, V = embedding.about, len(embedding.phase)
    population = f"{V:,} tokens"
    now, before = omegas(embedding)
    arrays |= {"omega": now, "omega_before": before, "ranks": subject.ranks, "phase": embedding.phase}
    if about.mass == "learned":
        moved = now.log() - before.log()
        found.add("usage/omega/shift", float(moved.abs().mean()), population, "of ln ω", Null("the start", [0.0]))
        log_rank = (subject.ranks.double() + 1).log()
        values = [_pearson(log_rank, each.log()) for each in (now, before)]
        found.add("usage/omega/rank_r", values[0], population, "", Null("the start", [values[1]]))
    else:
        found.leave_out("usage/omega", ("shift",), f"embedding.mass is {about.mass}: ω is fixed")
    if about.position == "phase":
        initial = start.omega if about.phase_init == "uniform" else ladder(about.waves, 10_000.0)
        moved = (embedding.omega.double() - initial.double()).abs().mean()
        found.add(
            "usage/position_omega/shift", float(moved), f"{about.waves} waves", "rad a token", Null("the start", [0.0])
        )
    test, null = (rayleigh(of.phase.flatten()) for of in (embedding, start))
    found.add("usage/phase/length", test.length, population, "", Null(UNTRAINED, [null.length]))
    found.add("usage/phase/p", test.p, population)
    moved = torch.remainder(embedding.phase - start.phase + torch.pi, 2 * torch.pi) - torch.pi
    found.add("usage/phase/shift", float(moved.abs().mean()), population, "rad", Null("the start", [0.0]))
    if (learned := embedding.harmonic_amplitudes) is not None:
        arrays["harmonic_amplitudes"] = learned
        found.add(
            "usage/harmonics/divergence", float(harmonic_divergence(learned)), "", "nats", Null("the start", [0.0])
        )
    else:
        found.leave_out("usage/harmonics", ("divergence",), "embedding.amplitude is fixed: 1/n, and nothing to learn")


def _pearson(x: Tensor, y: Tensor) -> float:
    ones = torch.ones_like(x)
    return float(pearson_from_sums(ones.sum(), x.sum(), y.sum(), x @ x, y @ y, x @ y))


def named_tokens(subject: Subject) -> dict[str, int]:
    """The commonest, the median and the rarest token of those that the training part has."""
    order = torch.argsort(subject.ranks).tolist()
    counts = subject.tokenizer.counts
    known = [i for i in order if i != subject.tokenizer.end and (counts is None or counts[i] > 0)]
    known = known or order
    return {"commonest": known[0], "median": known[len(known) // 2], "rarest": known[-1]}


def as_arrays(found: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    """For a file: tensors on the CPU, fp32."""
    return {
        name: np.asarray(value.detach().cpu().float() if isinstance(value, Tensor) else value, dtype=np.float32)
        for name, value in found.items()
    }


@torch.no_grad()
def drawn_packets(subject: Subject, tokens: dict[str, int], arrays: Arrays) -> dict[str, Any]:
    """Packets and phases of some tokens into `arrays`; returns their texts."""
    embedding = subject.model.embedding
    if not isinstance(embedding, WaveEmbedding):
        return {}
    omega = omegas(embedding)[0]
    fastest = embedding.about.harmonics * float(omega.max())
    duration = float(observation_times(embedding.about, len(omega)).max())
    times = grid(duration, fastest)
    arrays |= {"packet_times": times, "packets": packets(embedding, torch.tensor(list(tokens.values())), times)}
    order = torch.argsort(subject.ranks)
    places = torch.linspace(0, len(order) - 1, min(_PHASE_ROWS, len(order))).round().long().tolist()
    return {
        "packets": {
            name: {"id": i, "text": shown(subject.tokenizer, i), "omega": float(omega[i])} for name, i in tokens.items()
        },
        "packet_limit": torch.pi / fastest,
        "phase_tokens": [
            {"id": int(order[p]), "rank": p, "text": shown(subject.tokenizer, int(order[p]))} for p in places
        ],
    }
