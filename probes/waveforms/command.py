"""A wave language model beside its untrained self and a RoPE baseline: harmonics, fringes, stability, use of its parts.

Every figure has a null. What the plots are drawn from is saved, so that they can be drawn again without the model, and
generation can be shown as an animation.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probes.battery import folder_for, measured, publish
from probes.options import at_least, with_bar

DESCRIPTION = """\
Diagnostics of a model that train.py trained with wavegpt.WaveLM, or of a control of it: harmonics of the stream along
positions, fringes of mean attention by lag, growth of a small change with depth, and what of the model is in use. Each
stands beside surrogates, beside the same model untrained, and attention beside a RoPE baseline too. A control without
waves gets what applies to it, and a line for what does not."""

EXAMPLES = """\
examples:
  python probe.py waveforms runs/wave
  python probe.py waveforms runs/wave --baseline runs/baseline --texts book.txt --output runs/probes/wave
  python probe.py waveforms runs/wave --prompt "the act of" --animate
  python probe.py waveforms --redraw runs/probes/wave"""

TENSORS, ANIMATION = "tensors.npz", "animation.json"
PROMPT = "a small animal that moves from one place to another in search of food"
SENTENCE = 32  # tokens that are drawn
_EXAMPLES = 800  # of WordNet: more than are read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="RUN_OR_FOLDER", nargs="?", help="a run of WaveLM, or the folder wavegpt/ in it")
    add("--texts", type=Path, metavar="FILE", help="paragraphs of text (default: examples of WordNet)")
    add(
        "--baseline",
        metavar="FOLDER",
        help="a run, or the folder of a model (default: the model's configuration with attention.kind rope, untrained)",
    )
    add("--prompt", default=PROMPT, metavar="TEXT", help="sentence that is drawn, and that --animate continues")
    add("--layer", type=at_least(0), default=None, metavar="N", help="whose interference is drawn (default: the last)")
    add(
        "--animate",
        nargs="?",
        const="auto",
        choices=("auto", "mp4", "gif", "png"),
        help="generation as a film: mp4 if there is an ffmpeg (auto; extra `animation`), else GIF; or PNG frames",
    )
    add("--tokens", type=at_least(1), default=30, help="that the animation generates (default: %(default)s)")
    add("--seed", type=at_least(0), default=42, help="of all draws (default: %(default)s)")
    add("--redraw", type=Path, metavar="DIR", help="draw again what an earlier call left in DIR, without a model")
    add("--output", type=Path, metavar="DIR", help="default: runs/probes/waveforms_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, tensors.npz, the pages and the figures, print the page.

    Raises:
        ValueError: no such model, layer, file or ffmpeg, or the disk refuses a file.
    """
    import numpy as np

    from modulant.storage import write_whole
    from probes.waveforms import charts, film, page

    if args.animate:
        film.writer_of(args.animate)
    if args.redraw is not None:
        if args.model is not None:
            raise ValueError("--redraw draws what DIR holds; name no model beside it")
        folder = folder_for("waveforms", [], args.output or args.redraw)
        found, arrays, trace = _saved(args.redraw)
    elif args.model is None:
        raise ValueError("RUN_OR_FOLDER is missing: name a run of WaveLM, or --redraw DIR")
    else:
        folder = folder_for("waveforms", [args.model], args.output)
        found, arrays, trace = measure(args)
    shown = charts.charts(found, arrays)
    publish(folder, found, shown, page.content(found), f", {TENSORS}")
    write_whole(folder / TENSORS, lambda file: np.savez_compressed(file, **arrays))
    if "phase" in arrays:
        film.draw_circle(arrays, found, folder / "figures" / "phase_circle.png")
    if trace is not None:
        write_whole(folder / ANIMATION, json.dumps(trace, ensure_ascii=False) + "\n")
    if args.animate:
        if trace is None:
            raise ValueError(f"--animate: {args.redraw} holds no {ANIMATION}; measure with --animate first")
        print(f"written: {film.write(trace, folder, args.animate)}, {ANIMATION}")
    return 0


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """What report.json and tensors.npz hold, and the trace of an animation.

    Raises:
        ValueError: no such model, layer or file, or a text that is too short.
    """
    started = time.monotonic()
    import torch

    from probes.attention.texts import wordnet_examples
    from probes.findings import Findings
    from probes.spectra.texts import read_passages
    from probes.waveforms import measure as figures
    from probes.waveforms.reading import read, sentence_scores
    from probes.waveforms.subject import open_subject, shown, windows_of

    subject = open_subject(args.model)
    model, tokenizer, config = subject.model, subject.tokenizer, subject.model.config
    layer = config.layers - 1 if args.layer is None else args.layer
    if layer >= config.layers:
        raise ValueError(f"--layer: {layer}; the model has {config.layers}, so it must be 0 … {config.layers - 1}")
    prompt = [tokenizer.end, *map(int, tokenizer.encode(args.prompt))]
    if len(prompt) < 2:
        raise ValueError("--prompt is empty; give some text")
    other = open_subject(args.baseline, "--baseline") if args.baseline else None
    texts = wordnet_examples(_EXAMPLES) if args.texts is None else read_passages(args.texts)
    what = "examples of WordNet" if args.texts is None else f"the paragraphs of {args.texts.name}"
    windows = windows_of(subject, texts, what)
    found = Findings()
    arrays: dict[str, Any] = {}
    start, baseline = subject.untrained(), other.model if other else subject.rope()
    models = {"": (model, windows), "untrained": (start, windows)}
    if baseline is None:
        found.leave_out("baseline/fringes", ("p",), f"a head is {config.head_dim} wide, and RoPE needs an even width")
    else:
        models["baseline"] = baseline, windows if other is None else windows_of(other, texts, what)
    readings = {
        name: read(one, of.ids, args.seed) for name, (one, of) in with_bar(list(models.items()), "reading texts")
    }
    for name, reading in readings.items():
        prefix, key = (f"{name}/", f"{name}_") if name else ("", "")
        figures.measure_harmonics(reading, found, prefix, args.seed)
        arrays[f"{key}residual"] = figures.measure_fringes(reading, found, prefix, args.seed)
        beside = None if name else readings["untrained"]
        figures.measure_stability(reading, found, prefix, beside, args.seed)
        arrays |= {f"{key}profile": reading.profile, f"{key}growth": reading.growth}
    tokens = figures.named_tokens(subject)
    figures.measure_packets(subject, tokens, found, args.seed)
    arrays |= figures.measure_usage(subject, start, (readings[""], readings["untrained"]), found)
    arrays["intensity"] = readings[""].intensity
    sentence = prompt[:SENTENCE][: config.context]
    arrays["scores"] = torch.stack([scores.total[0] for scores in sentence_scores(model, sentence)])
    about = {"sentence": [shown(tokenizer, i) for i in sentence], "score": _score(config.attention.kind)}
    about |= figures.drawn_packets(subject, tokens, arrays)
    trace = None
    if args.animate:
        from probes.waveforms.film import trace_of

        trace = trace_of(subject, prompt, args.tokens, layer, args.seed)
    report = {
        "probe": "waveforms",
        "model": args.model,
        "shape": {"d_model": config.d_model, "layers": config.layers, "heads": config.heads, "context": config.context},
        "settings": {
            "seed": args.seed,
            "layer": layer,
            "initial_seed": subject.seed,
            "embedding": asdict(config.embedding),
            "attention": asdict(config.attention),
        },
        "texts": windows.what,
        "baseline": args.baseline or ("the model's configuration with RoPE, untrained" if baseline else "none"),
        "run": _training(subject),
        "shown": about,
        **measured(found, next(model.parameters()).device, started),
    }
    return report, figures.as_arrays(arrays), trace


def _score(kind: str) -> str:
    return "scaled interference I_tk" if kind == "interference" else "score" if kind == "pure_wave" else "logit"


def _training(subject: Any) -> dict[str, Any]:
    """What the learning curve and the annealing are drawn from."""
    keys = ("train/loss", "val/loss", "val/bits_per_byte", "val/bits_per_byte_annealed")
    series = {key: subject.metrics[key] for key in keys if key in subject.metrics}
    anneal = None
    if subject.anneal is not None and subject.anneal.steps:
        steps = max([subject.anneal.steps, *(series[key][-1][0] for key in series)])
        places = sorted({round(i * steps / 200) for i in range(201)})
        anneal = {
            "function": [(step, subject.anneal.ratio(step)) for step in places],
            "logged": subject.metrics.get("anneal/ratio", []),
        }
    return {"series": series, "tokens_per_step": subject.tokens_per_step, "anneal": anneal}


def _saved(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """What an earlier call left.

    Raises:
        ValueError: it left nothing there, or it is damaged.
    """
    import numpy as np

    try:
        found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        with np.load(folder / TENSORS) as held:
            arrays = dict(held)
        trace = folder / ANIMATION
        steps = json.loads(trace.read_text(encoding="utf-8")) if trace.is_file() else None
    except OSError as error:
        raise ValueError(
            f"--redraw: {error.filename} cannot be read ({error.strerror}); name what --output was"
        ) from error
    except ValueError as error:
        raise ValueError(f"--redraw: {folder} holds a damaged file ({error}); measure again") from error
    if found.get("probe") != "waveforms":
        raise ValueError(f"--redraw: {folder} is a report of {found.get('probe', 'something else')}, not of waveforms")
    return found, arrays, steps
