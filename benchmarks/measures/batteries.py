"""What the measurements of terrain and topology cost beside the plain way of each, on one thread.

Matrices have a spectrum like trained ones, σ_i ∝ i^−½. Plain ways are those that one would write down: a singular value
decomposition, the D × D matrix of a head, a comparison of the whole matrix a threshold, the cosines of a sample of
rows. The two commands run whole, in fresh processes, on the model that the development extra installs.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import ROOT, Row, interleaved, milliseconds, ratio
from modulant.geometry import (
    Moments,
    bilinear_form,
    cosine_moments,
    effective_ranks,
    leading_ranks,
    shares_below,
    singular_figures,
    singular_values,
    stable_rank,
    symmetric_figures,
)

LIMITS = (1e-4, 1e-3, 1e-2, 1e-1)
COMMANDS = {"terrain": 15, "topology": 20}  # seconds, whole
ABOUT = """\
Terrain and topology beside the straightforward way to the same figures.

- **Plain** is in fp32 where nothing else is said; one thread.
- **Heads**: all figures of a head, by its D × D matrix.
- **Cosines**: moments over all 1.2 × 10⁹ pairs, beside those of 5,000 sampled rows. Parity is with all pairs of a \
smaller cloud, one by one.
- **Commands** are fresh processes on all-MiniLM-L6-v2, start-up included."""


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is plain / ours, for cosines ours / plain."""
    with _one_thread():
        rows = [*_spectra(quick), *_heads(quick), *_thresholds(quick), *_cosines(quick)]
        if quick:  # what is asked is asked of the whole sizes
            return [{**row, "asked": ""} for row in rows]
        return [*rows, *_commands()]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gaussian(*sizes: int, seed: int = 0) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


def trained_like(m: int, n: int) -> Tensor:
    """A matrix with the singular values i^−½."""
    k = min(m, n)
    left, right = torch.linalg.qr(gaussian(m, k)).Q, torch.linalg.qr(gaussian(n, k, seed=1)).Q
    return (left * torch.arange(1, k + 1).float().rsqrt()) @ right.mT


def _row(
    what: str, ways: Mapping[str, Callable[[], object]], turns: int, asked: str, parity: str, at_most: bool = False
) -> Row:
    """A row of two ways, `ours` and `plain`."""
    seconds = interleaved(ways, turns)
    ours, plain = seconds["ours"], seconds["plain"]
    return {
        "what": what,
        "ours": _time(ours),
        "plain": _time(plain),
        "ratio": str(ratio(ours, plain) if at_most else ratio(plain, ours)),
        "asked": asked,
        "parity": parity,
    }


def _time(seconds: Sequence[float]) -> str:
    middle = median(seconds)
    return milliseconds(seconds) if middle < 1 else f"{middle:.1f} s"


def _parity(error: float, limit: float, of: str) -> str:
    return f"{'equal' if error <= limit else 'differ'}: {of} to {error:.0e}"


def _spectra(quick: bool) -> Iterator[Row]:
    m, n = (256, 1024) if quick else (1024, 4096)
    matrix, turns = trained_like(m, n), 3 if quick else 7
    exact = singular_values(matrix, exact=True)
    shape = f"{m:,} × {n:,}"

    error = float(((singular_values(matrix) - exact).abs() / exact[0]).max())
    parity = _parity(error, 1e-9, "σ / σ₁")
    ours = partial(singular_values, matrix)
    for precision, of in (("fp64", matrix.double()), ("fp32", matrix)):
        ways = {"ours": ours, "plain": partial(torch.linalg.svdvals, of)}
        yield _row(f"spectrum, {shape}, against svdvals in {precision}", ways, turns, ">= 5", parity)

    wanted, found = effective_ranks(exact), leading_ranks(matrix)
    error = max(abs(value / wanted[name] - 1) for name, value in found.items())
    ways = {"ours": partial(leading_ranks, matrix), "plain": partial(_ranks_by_svd, matrix)}
    what = f"stable rank and participation ratio, {shape}, against svdvals"
    yield _row(what, ways, turns, ">= 12", _parity(error, 1e-5, "both"))


def _ranks_by_svd(matrix: Tensor) -> tuple[Tensor, Tensor]:
    energies = torch.linalg.svdvals(matrix).square()
    return energies.sum() / energies[0], energies.sum().square() / energies.square().sum()


def _heads(quick: bool) -> Iterator[Row]:
    n, d, width = (4, 32, 256) if quick else (16, 64, 1024)
    left, right = gaussian(n, d, width), gaussian(n, d, width, seed=1) + 0.3 * gaussian(n, d, width)
    found, plain = _by_form(left, right), _by_matrix(left.double(), right.double())
    error = max(float((found[name] - values).abs().max()) for name, values in plain.items())
    ways = {"ours": partial(_by_form, left, right), "plain": partial(_by_matrix, left, right)}
    what = f"figures of {n} heads of {d}, D = {width:,}, against D × D"
    yield _row(what, ways, 2 if quick else 3, ">= 80", _parity(error, 1e-6, "all"))


def _by_form(left: Tensor, right: Tensor) -> dict[str, Tensor]:
    form = bilinear_form(left, right)
    return singular_figures(form) | symmetric_figures(form)


def _by_matrix(left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """The same figures of M itself, a head at a time."""
    found: dict[str, list[Tensor]] = {}
    for one, other in zip(left, right, strict=True):
        m = one.mT @ other
        singular, eigenvalues = torch.linalg.svdvals(m), torch.linalg.eigvalsh((m + m.mT) / 2)
        own = torch.linalg.eigvals(m)
        for name, value in {
            "stable_rank": stable_rank(singular),
            "participation_ratio": singular.square().sum().square() / singular.pow(4).sum(),
            "signed_mass": eigenvalues.sum() / eigenvalues.abs().sum(),
            "symmetry": (m * m.mT).sum() / m.square().sum(),
            "reality": own.real.sum() / own.abs().sum(),
        }.items():
            found.setdefault(name, []).append(value)
    return {name: torch.stack(values) for name, values in found.items()}


def _thresholds(quick: bool) -> Iterator[Row]:
    side = 1024 if quick else 4096
    matrix = gaussian(side, side)
    error = max(abs(a - b) for a, b in zip(shares_below(matrix, LIMITS), _one_by_one(matrix), strict=True))
    ways = {"ours": partial(shares_below, matrix, LIMITS), "plain": partial(_one_by_one, matrix)}
    yield _row(f"four thresholds of {side:,}²", ways, 7, ">= 6", _parity(error, 1e-12, "shares"))


def _one_by_one(matrix: Tensor) -> list[float]:
    return [float((matrix.abs() < limit).double().mean()) for limit in LIMITS]


def _cosines(quick: bool) -> Iterator[Row]:
    n, dim, sample = (8192, 64, 1000) if quick else (49_152, 576, 5000)
    cloud = gaussian(n, dim) + 0.1
    rows = cloud[torch.randperm(n, generator=torch.Generator().manual_seed(0))[:sample]]
    wanted, found = _of_pairs(rows.double()), cosine_moments(rows)
    error = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    ways = {"ours": partial(cosine_moments, cloud), "plain": partial(_of_pairs, rows)}
    what = f"moments of cosines, {n:,} × {dim}, all pairs, beside a sample's of {sample:,} rows"
    yield _row(what, ways, 3 if quick else 7, "<= 1.5", _parity(error, 1e-6, "mean and sd"), True)


def _of_pairs(rows: Tensor) -> Moments:
    """Mean and sd over the pairs of rows, each of which is formed."""
    unit = F.normalize(rows, dim=-1)
    first, second = torch.triu_indices(len(unit), len(unit), 1)
    cosines = (unit @ unit.mT)[first, second]
    return Moments(float(cosines.mean()), float(cosines.std(correction=0)))


def _commands() -> Iterator[Row]:
    for command, limit in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            began, spent = perf_counter(), _of_children()
            words = ["probe.py", command, "all-MiniLM-L6-v2", "--output", folder]
            environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
            seconds, spent = perf_counter() - began, _of_children() - spent
        if done.returncode:
            raise SystemExit(f"error: {' '.join(words)}: {done.stderr.strip().splitlines()[-1]}")
        ours = f"{seconds:.1f} s, of which {spent:.1f} s a processor"
        yield {"what": f"`probe.py {words[1]} {words[2]}`", "ours": ours, "asked": f"<= {limit} s"}


def _of_children() -> float:
    """Processor time of finished child processes, which other processes of a busy machine do not lengthen much."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
