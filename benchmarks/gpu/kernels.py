"""What a step launches, by kind of kernel: how many, and how long they ran."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.setting import FLOOR, FULL, Setting
from benchmarks.harness import Row, milliseconds
from benchmarks.ways import MODULATORS, Batch, Through, Way, fine_tuned, modulated

# By the names of kernels (cuBLAS, CUTLASS, PyTorch's, Triton's) and, on a CPU, of operators; the first that fits.
KINDS = {
    "AdamW": r"adam|multi_tensor|addcdiv|addcmul_|lerp_",
    "attention": r"fmha|flash|attention|softmax",
    "matrix products": r"gemm|gemv|cutlass|xmma|cublas|nvjet|::(add|b|m|bad)?mm\b|::addbmm|::baddbmm",
    "indexing": r"embedding|index|gather|scatter",
    "copies": r"copy|cat(array)?|memcpy|memset|fill|zero_|clone|empty",
    "sums and norms": r"reduce|norm|::sum|::mean",
    "elementwise": r"elementwise|vectorized|triton|::(mul|add|sub|div|neg|pow|sqrt|rsqrt|sigmoid|relu|where|lerp)",
}


@dataclass
class Group:
    """Kernels of one kind in a step."""

    count: int = 0
    seconds: float = 0.0


def launches(now: Setting) -> Iterator[Row]:
    """Kernels a step, and by kind what the modulators add to the floor: whether a fused kernel would pay."""
    model = now.backbone()
    batch = now.batches(model)[2]
    ways = {FLOOR: modulated(model, Through)} | {name: modulated(model, kind) for name, kind in MODULATORS.items()}
    ways[FULL] = fine_tuned(model)
    found = {name: profiled(way, batch, now.cuda) for name, way in ways.items()}
    unit = "kernels" if now.cuda else "operations on the CPU"
    for name, groups in found.items():
        count, spent = sum(g.count for g in groups.values()), sum(g.seconds for g in groups.values())
        by_kind = sorted(groups.items(), key=lambda item: -item[1].seconds)
        yield {
            "what": f"{now.shape}, a step's {unit}, {name}: "
            + ", ".join(f"{kind} {g.count} ({g.seconds / spent:.0%})" for kind, g in by_kind),
            "ours": f"{count:,}",
            "plain": milliseconds([spent]),
        }
        if name in MODULATORS:
            floor = found[FLOOR]
            more = {
                kind: (g.count - floor[kind].count, g.seconds - floor[kind].seconds)
                for kind, g in groups.items()
                if kind in floor
            } | {kind: (g.count, g.seconds) for kind, g in groups.items() if kind not in floor}
            yield {
                "what": f"{now.shape}, of these {name} adds: "
                + ", ".join(f"{kind} {n} ({1e3 * s:.2g} ms)" for kind, (n, s) in more.items() if n),
                "ours": f"{sum(n for n, _ in more.values()):,}",
                "plain": milliseconds([sum(s for _, s in more.values())]),
                "ratio": f"{sum(s for _, s in more.values()) / spent:.2f}",
            }


def profiled(way: Way, batch: Batch, cuda: bool) -> dict[str, Group]:
    """Of one step after two that are not looked at; on a CPU of operators, each by its own time."""
    for _ in range(2):
        way.step(batch)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        way.step(batch)
    groups: dict[str, Group] = defaultdict(Group)
    for event in found.events():
        if cuda and event.device_type.name == "CUDA":
            seconds = event.device_time_total
        elif not cuda and event.name.startswith("aten::"):
            seconds = event.self_cpu_time_total
        else:
            continue
        group = groups[kind_of(event.name)]
        group.count += 1
        group.seconds += seconds / 1e6
    return dict(groups)


def kind_of(name: str) -> str:
    """
    >>> kind_of("sm90_xmma_gemm_f32f32_tf32f32_f32_tn"), kind_of("aten::mm")
    ('matrix products', 'matrix products')
    """
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name.lower())), "other")
