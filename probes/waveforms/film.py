"""Generation as a film: what the model computed before each token, a frame a token; and phases as a circle.

A frame is drawn from the trace's numbers alone, so a film can be drawn again without the model.
"""

import math
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from modulant.reports.drawing.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, dress, save
from modulant.reports.wording import number
from modulant.storage import storing, write_whole
from probes.options import with_bar
from probes.waveforms.charts import phase_density

if TYPE_CHECKING:
    from probes.waveforms.subject import Subject

Trace = Mapping[str, Any]
Frame = np.ndarray[Any, np.dtype[np.uint8]]

TOP = 8  # likeliest tokens
PER_SECOND = 2  # frames
_TEMPERATURE = 0.8  # as `predict` samples
_SHOWN = 44  # tokens of the context whose columns are drawn, the last ones
_SIZE = (12.8, 7.2)  # inches, of 100 dots
_HEADS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, "#56B4E9", INK, GREY)
_FONT, _ADVANCE = 12.0, 0.602  # points, and the width of a character over it


def trace_of(subject: "Subject", prompt: Sequence[int], tokens: int, layer: int, seed: int) -> dict[str, Any]:
    """Everything that is drawn, as plain JSON values: `wavegpt.diagnostics.trace` with tokens as text."""
    from probes.waveforms.subject import shown
    from wavegpt import Sampling
    from wavegpt.diagnostics.trace import trace

    model, tokenizer = subject.model, subject.tokenizer
    sampling = Sampling(temperature=_TEMPERATURE, seed=seed)
    steps = trace(model, prompt, tokens, sampling, (tokenizer.end,), layer=layer, top=TOP)
    found = [step.as_json() for step in with_bar(steps, "generating", tokens)]
    used = {i for step in found for i in (step["token"], *step["top"], *step["context"])} | set(prompt)
    return {
        "model": subject.name,
        "layer": layer,
        "kind": model.config.attention.kind,
        "vocabulary": tokenizer.vocab_size,
        "temperature": _TEMPERATURE,
        "seed": seed,
        "prompt": list(prompt),
        "texts": {str(i): shown(tokenizer, i) for i in sorted(used)},
        "steps": found,
    }


def writer_of(kind: str) -> Callable[[Iterator[Frame], Path], Path]:
    """How frames become a file.

    Args:
        kind: mp4, gif, png, or auto: mp4 if there is an ffmpeg, else gif.

    Raises:
        ValueError: mp4, and there is no ffmpeg.
    """
    program = _ffmpeg()
    if kind == "mp4" and program is None:
        raise ValueError("--animate mp4: there is no ffmpeg; install the extra `animation`, or choose gif or png")
    if kind == "png":
        return _write_pngs
    if kind == "gif" or program is None:
        return _write_gif
    return lambda frames, folder: _write_mp4(frames, folder, program)


def write(trace: Trace, folder: Path, kind: str) -> Path:
    """Draw a trace and write it into a folder; returns the file, or the folder of frames."""
    total = len(trace["steps"])
    return writer_of(kind)(iter(with_bar(frames(trace), "drawing", total)), folder)


def _ffmpeg() -> str | None:
    """The program of the package imageio-ffmpeg, or the system's."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return shutil.which("ffmpeg")


def _write_mp4(frames: Iterator[Frame], folder: Path, program: str) -> Path:
    """Piped to ffmpeg, which chooses the encoder that its build has for mp4."""
    path = folder / "animation.mp4"
    first = next(frames)
    height, width = first.shape[:2]
    words = [program, "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    words += [
        "-r",
        str(PER_SECOND),
        "-i",
        "-",
        "-pix_fmt",
        "yuv420p",
        "-r",
        "10",
        "-fflags",
        "+bitexact",
        "-threads",
        "1",
    ]
    part = path.with_name("animation.part.mp4")
    with (
        storing(folder),
        subprocess.Popen([*words, str(part)], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            for frame in (first, *frames):
                process.stdin.write(frame.tobytes())
            process.stdin.close()
            said = process.stderr.read().decode(errors="replace").strip()
        except BrokenPipeError:
            said = process.stderr.read().decode(errors="replace").strip()
        except BaseException:
            process.kill()
            part.unlink(missing_ok=True)
            raise
    if process.returncode:
        part.unlink(missing_ok=True)
        raise ValueError(f"--animate: {program} failed ({' '.join(said.split())[:200]}); choose gif or png")
    return part.replace(path)


def _write_gif(frames: Iterator[Frame], folder: Path) -> Path:
    path = folder / "animation.gif"
    images = [Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames]
    rest, hold = images[1:], 1000 // PER_SECOND
    write_whole(
        path,
        lambda file: images[0].save(
            file, "GIF", save_all=True, append_images=rest, duration=hold, loop=0, optimize=False
        ),
    )
    return path


def _write_pngs(frames: Iterator[Frame], folder: Path) -> Path:
    folder = folder / "frames"
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("frame_*.png"):
        old.unlink()
    for i, frame in enumerate(frames):
        write_whole(folder / f"frame_{i:03d}.png", partial(Image.fromarray(frame).save, format="PNG"))
    return folder


def frames(trace: Trace) -> Iterator[Frame]:
    """One picture a step, (720, 1280, 3)."""
    figure = Figure(figsize=_SIZE, dpi=100)
    canvas = FigureCanvasAgg(figure)
    limits = _limits(trace)
    for i in range(len(trace["steps"])):
        figure.clear()
        _draw_frame(figure, trace, i, limits)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph", UserWarning)  # of scripts that the font lacks
            canvas.draw()  # type: ignore[no-untyped-call]
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _limits(trace: Trace) -> dict[str, float]:
    """Scales that are the same in all frames."""
    steps = trace["steps"]
    cross = [abs(v) for step in steps for row in step["cross"] for v in row[-_SHOWN:]]
    keys = [v for step in steps for row in step["key"] or () for v in row[-_SHOWN:]] or [0.0, 1.0]
    radii = [v for step in steps if step["phasors"] for row in step["phasors"][0] for v in row] or [1.0]
    columns = max(len(step["context"][-_SHOWN:]) for step in steps)
    chance = 1.05 * max(step["probabilities"][0] for step in steps)
    return {
        "chance": chance,
        "cross": max(cross) or 1.0,
        "low": min(keys),
        "high": max(keys),
        "radius": max(radii),
        "columns": columns,
    }


def _draw_frame(figure: Figure, trace: Trace, i: int, limits: Mapping[str, float]) -> None:
    step = trace["steps"][i]
    _text(figure.add_axes((0.02, 0.69, 0.58, 0.25)), trace, i)
    _likeliest(figure.add_axes((0.72, 0.71, 0.26, 0.22)), trace, step, limits)
    context = [trace["texts"][str(token)] for token in step["context"][-_SHOWN:]]
    labels = [text if len(text) <= 8 else f"{text[:7]}…" for text in context]
    cross = figure.add_axes((0.06, 0.40, 0.52, 0.20))
    _heat(cross, step["cross"], "RdBu_r", (-limits["cross"], limits["cross"]), limits, figure, 0.40)
    cross.set_title(f"layer {trace['layer']}: {_cross_name(trace)} of the last token with each", loc="left", fontsize=9)
    cross.set_xticks([])
    key = figure.add_axes((0.06, 0.15, 0.52, 0.20))
    if step["key"] is None:
        _nothing(key, f"no key bias: attention is {trace['kind']}")
    else:
        _heat(key, step["key"], "viridis", (limits["low"], limits["high"]), limits, figure, 0.15)
        key.set_title("key bias s Σ A_k² of each, s the scale of the softmax", loc="left", fontsize=9)
    key.set_xlim(-0.5, limits["columns"] - 0.5)
    key.set_xticks(range(len(labels)), labels, rotation=90, fontsize=6.5, family="monospace", parse_math=False)
    _phases(figure, trace, i, limits)
    _entropy(figure.add_axes((0.73, 0.09, 0.25, 0.13)), trace, i)


def _cross_name(trace: Trace) -> str:
    return "cross term 2s⟨z_q, z_k⟩" if trace["kind"] == "interference" else "logit"


def _nothing(axis: Axes, why: str) -> None:
    axis.text(0.5, 0.5, why, ha="center", va="center", color=GREY, fontsize=10, transform=axis.transAxes)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_color("#dddddd")


def _text(axis: Axes, trace: Trace, i: int) -> None:
    """The last lines of the text, a box a token; the one that is drawn now stands out."""
    size = axis.get_window_extent()
    columns = size.width / 100 * 72 / (_FONT * _ADVANCE)
    rows = max(int(size.height / 100 * 72 / (_FONT * 1.9)), 1)
    n_prompt = len(trace["prompt"])
    ids = [*trace["prompt"], *(step["token"] for step in trace["steps"][: i + 1])]
    places, x, y = [], 0.0, 0
    for place, token in enumerate(ids):
        text = trace["texts"][str(token)].replace("␣", " ")
        if x and x + len(text) > columns - 1:
            x, y = 0.0, y + 1
        places.append((x, y, text, place))
        x += len(text)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.set_axis_off()
    axis.set_title(
        f"{trace['model']}, token {i + 1} of {len(trace['steps'])}", loc="left", fontsize=10, parse_math=False
    )
    skipped = max(0, y + 1 - rows)
    for x, y, text, place in places:
        if y < skipped:
            continue
        newest, given = place == len(ids) - 1, place < n_prompt
        colour = "#ffd9a8" if newest else "#f0f0f0" if given else "#d6e8f5"
        box = Rectangle((x, y - skipped + 0.1), len(text), 0.8, facecolor=colour, edgecolor="#888888", linewidth=0.6)
        axis.add_patch(box)
        axis.text(x, y - skipped + 0.53, text, fontsize=_FONT, family="monospace", va="center", parse_math=False)


def _likeliest(axis: Axes, trace: Trace, step: Mapping[str, Any], limits: Mapping[str, float]) -> None:
    names = [f"“{trace['texts'][str(token)]}”" for token in step["top"]]
    colours = [VERMILION if token == step["token"] else BLUE for token in step["top"]]
    axis.barh(range(len(names)), step["probabilities"], color=colours)
    axis.set_yticks(range(len(names)), names, fontsize=8, family="monospace", parse_math=False)
    axis.set_ylim(TOP - 0.5, -0.5)
    axis.set_xlim(0, limits["chance"])
    dress(axis, "", "", "", "x")
    axis.tick_params(axis="x", labelsize=7)
    drawn = f"drawn: “{trace['texts'][str(step['token'])]}”" + (
        "" if step["token"] in step["top"] else ", not among them"
    )
    axis.set_title(f"likeliest tokens; {drawn}", loc="left", fontsize=9, x=-0.3, parse_math=False)


def _heat(
    axis: Axes,
    cells: Any,
    colours: str,
    ends: tuple[float, float],
    limits: Mapping[str, float],
    figure: Figure,
    low: float,
) -> None:
    """Heads by tokens of the context; columns to come stay empty."""
    shown = np.asarray([row[-_SHOWN:] for row in cells])
    image = axis.imshow(shown, aspect="auto", cmap=colours, vmin=ends[0], vmax=ends[1])
    axis.set_xlim(-0.5, limits["columns"] - 0.5)
    axis.set_yticks(range(len(shown)), [f"head {head}" for head in range(len(shown))], fontsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, cax=figure.add_axes((0.59, low, 0.008, 0.20)))
    bar.ax.tick_params(labelsize=7, length=0)
    bar.outline.set_visible(False)


def _phases(figure: Figure, trace: Trace, i: int, limits: Mapping[str, float]) -> None:
    """Phasors of the last token's key on the circle, those of the three tokens before it faint."""
    if trace["steps"][i]["phasors"] is None:
        _nothing(figure.add_axes((0.69, 0.30, 0.29, 0.26)), f"no phases: attention is {trace['kind']}")
        return
    axis: Any = figure.add_axes((0.70, 0.31, 0.27, 0.26), projection="polar")
    for back in range(min(3, i), -1, -1):
        radii, angles = trace["steps"][i - back]["phasors"]
        for head, (radius, angle) in enumerate(zip(radii, angles, strict=True)):
            shade = _HEADS[head % len(_HEADS)]
            how = {"markersize": 2, "alpha": 0.35 / back} if back else {"markersize": 4, "label": f"head {head}"}
            axis.plot(angle, radius, "o", color=shade, markeredgewidth=0, **how)
    axis.set_rlim(0, limits["radius"] * 1.05)
    axis.set_yticklabels([])
    axis.tick_params(labelsize=7, pad=0)
    axis.set_title("phases θ and amplitudes A of the last token's key", fontsize=9, pad=8)
    axis.legend(fontsize=6.5, frameon=False, loc="center left", bbox_to_anchor=(1.08, 0.5), handletextpad=0.1)


def _entropy(axis: Axes, trace: Trace, i: int) -> None:
    values = [step["entropy"] for step in trace["steps"]]
    axis.plot(range(i + 1), values[: i + 1], color=BLUE, linewidth=1.5)
    axis.plot([i], [values[i]], "o", color=VERMILION, markersize=5)
    axis.axhline(math.log(trace["vocabulary"]), color=GREY, linestyle=":", linewidth=1)
    axis.set_xlim(-0.5, max(len(values) - 0.5, 1))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axis.set_ylim(0, math.log(trace["vocabulary"]) * 1.08)
    dress(axis, "", "", "")
    axis.tick_params(labelsize=7)
    axis.set_title(f"entropy {number(values[i], 2)} nats; dotted: uniform", loc="left", fontsize=9)


def draw_circle(arrays: Mapping[str, Any], found: Mapping[str, Any], path: Path) -> None:
    """All phases φ as a histogram on the circle, its areas in proportion, with Rayleigh's p."""
    density, middles = phase_density(arrays)
    figure = Figure(figsize=(5, 5.2), layout="constrained")
    axis: Any = figure.add_subplot(projection="polar")
    axis.bar(middles, np.sqrt(density), width=2 * math.pi / len(middles), color=BLUE, alpha=0.8)
    axis.plot(np.linspace(0, 2 * math.pi, 200), np.full(200, math.sqrt(1 / (2 * math.pi))), ":", color=GREY)
    axis.set_yticklabels([])
    figures = found["figures"]
    length, p = (number(figures[f"usage/phase/{name}"], 3) for name in ("length", "p"))
    axis.set_title(f"φ: Rayleigh R̄ {length}, p {p}; dotted: uniform", fontsize=10)
    save(figure, path)
