"""Ask an artefact: what the original and the modulated model answer, side by side, without a run or Lightning."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datamodules.arguments import STANDARD_INPUT, piped_prompts, read_prompts
from modulators.arguments import GenerationSettings
from probes.options import numbers
from probes.pages import check_output_file, write_text

DESCRIPTION = """\
Ask the original and the modulated model, side by side: prompts by option, from a file, piped in, or typed at a
terminal. A prompt is a definition; "summarize: ", as in training, is put before it. What differs is marked."""

EXAMPLES = """\
examples:
  python probe.py talk runs/field/version_0
  python probe.py talk someone/their-modulator --prompt "a small dog" --alpha-scales 0,0.5,1,2
  python probe.py talk runs/field/version_0 --inspect --prompt "a small dog"
  python probe.py talk modulator/ --prompts prompts.txt --temperature 0.8 --samples 3 --output answers.jsonl"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="RUN_OR_ARTEFACT", help="a run, its modulator/, another artefact's folder, or its hub id")
    add("--prompt", action="append", metavar="TEXT", help="a definition to ask; as often as there are prompts")
    add("--prompts", metavar="FILE", default=STANDARD_INPUT, help="a prompt a line; without it, what is piped or typed")
    add("--alpha-scales", type=numbers, default=(1.0,), metavar="F,F,…", help="answer at each of these times α")
    add("--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    add("--top-p", type=float, default=1.0, help="of what is drawn (default: %(default)s)")
    add("--max-new-tokens", type=int, default=16, help="of an answer (default: %(default)s)")
    add("--samples", type=int, default=1, help="answers to each prompt, where they are drawn (default: %(default)s)")
    add("--seed", type=int, default=42, help="of what is drawn (default: %(default)s)")
    add("--next-tokens", type=int, default=5, help="how many likely first tokens to show (default: %(default)s)")
    add("--inspect", action="store_true", help="show how far each token of a prompt is moved, layer by layer")
    add("--output", type=Path, metavar="FILE", help="write the answers there as JSON lines too")


def main(args: argparse.Namespace) -> int:
    """Load, ask, show.

    Raises:
        ValueError: something a user can mend, in one line.
    """
    settings = GenerationSettings(
        args.alpha_scales, args.temperature, args.top_p, args.max_new_tokens, args.samples, args.seed, args.next_tokens
    )
    if args.output is not None:
        check_output_file(args.output, ("prompt", "original", "modulated"))
    known = args.prompt or read_prompts(args.prompts)
    if known == STANDARD_INPUT:
        known = piped_prompts()

    import torch

    from modulant.corpus.forms import source_form
    from modulators import load_modulated
    from modulators.comparison.conversation import Conversation
    from modulators.comparison.generation import Comparison, compare
    from modulators.comparison.page import console, show, show_inspection

    model, tokenizer = load_modulated(args.model)
    if not model.can_generate():
        raise ValueError(f"--model: {args.model} is of an encoder, which writes no answers; name a T5's or a Llama's")
    form = source_form(model.config, tokenizer)
    prompts: Iterable[str] = Conversation() if known is None else known
    said: list[Comparison] = []
    for prompt in prompts:
        ids = torch.tensor([form.asks(tokenizer, prompt)])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        begin = ids.shape[1] if form.question else 1
        answers = compare(model, tokenizer, model.modulation, [prompt], inputs, settings, begin)
        show(answers, console(), heading=known is not None)
        if args.inspect:
            show_inspection(model.modulation.inspect(ids, tokenizer), console())
        said += answers
    if args.output is not None:
        write_text(args.output, "".join(_lines(said)))
        print(f"written: {args.output}", file=sys.stderr)
    return 0


def _lines(said: Iterable[Any]) -> Iterator[str]:
    for asked in said:
        row = asked._asdict() | {name: getattr(asked, name)._asdict() for name in ("original", "modulated")}
        yield json.dumps(row, ensure_ascii=False) + "\n"
