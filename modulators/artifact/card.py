"""The model card of an artefact: Markdown behind a YAML front matter, as the hub reads it.

A pure function of what is known: the artefact's configuration, the run's report (`report.json`) and what
`probe.py controls` found (`figures.json`). What was not measured is left out, but for controls: that none were run is
said, since a lift without them is no result. No path of the machine it was trained on gets into a card.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from modulant.assets import WORDNET_SHA256
from modulators.artifact.sections import alpha, changed, number, task
from modulators.artifact.sections import controls as controls_section

_GEOMETRY = {
    "anchors": "anchors from",
    "n_anchors": "anchors",
    "anchors_held_out": "of them held out",
    "matched_tokens": "tokens with a point of their own",
    "tokens_by_neighbours": "by neighbours",
    "unmatched": "all other tokens",
    "seed": "seed",
    "wordnet": "WordNet",
    "reconstruction_correlation": "correlation of the points' cosines with Wu–Palmer similarity",
    "alignment_cosine": "mean cosine of the aligned points with the encoder's",
}


def model_card(
    config: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    controls: Mapping[str, Any] | None = None,
    name: str = "modulator",
) -> str:
    """The card.

    Args:
        config: what `modulator_config.json` holds.
        report: what the run's `report.json` holds; without it there are no figures.
        controls: what a folder of `probe.py controls` holds in `figures.json`.
        name: by which `load_modulated` finds the artefact: its folder's name, or a hub id.
    """
    report = report or {}
    kind, backbone = config["modulator"], _backbone(config)
    counted = f"{config['parameters']:,} parameters, attached" if "parameters" in config else "Attached"
    sections = [
        f"# {kind} for {backbone}",
        f"A geometric modulator of the residual stream of a frozen T5 encoder, trained by modulant on definition → "
        f"lemma over WordNet. {counted} to the encoder's layers {_listed(config['layers'])}. The backbone's "
        "weights are not in here and were not changed.",
        _section("How to load", _loading(name)),
        _section("What it changed", changed(report)),
        _section("Task and geometry", task(report)),
        _section("α per layer", alpha(report.get("alpha") or {})),
        _section("Controls", controls_section(controls)),
        _section("Where it comes from", _provenance(config, report)),
        _section("Limits", _limits(kind, report)),
        _section("Licence", _licence(config)),
    ]
    return f"---\n{_front_matter(config, report, name)}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def published(card: str, repo_id: str, local: str, backbone: str | None = None) -> str:
    """A card with the names that hold on the hub.

    Args:
        card: as `model_card` has written it, and perhaps somebody after it.
        repo_id: where it is going to be.
        local: what the artefact called its backbone.
        backbone: what others call it, if another name.
    """
    from huggingface_hub import ModelCard

    text = re.sub(r'load_modulated\("[^"\n]*"\)', f'load_modulated("{repo_id}")', card)
    if backbone is not None:
        name = re.escape(PurePath(local).name)
        for before, after in (
            ("# .* for ", ""),
            ("- Backbone: ", " (a local copy was trained on)"),
            (".*The backbone \\(", ""),
        ):
            text = re.sub(rf"^({before}){name}\b", rf"\g<1>{backbone}{after}", text, flags=re.M)
    parsed = ModelCard(text)
    data: Any = parsed.data
    if backbone is not None:
        data.base_model, data.base_model_relation = backbone, "adapter"
    if data.get("model_name"):
        data.model_name = PurePath(repo_id).name
    return str(parsed)


def of_the_hub(config: Mapping[str, Any]) -> bool:
    """Whether the backbone is one that anybody finds by its name on the hub."""
    return config["backbone"] != "mini" and not config.get("backbone_sha256")


def _front_matter(config: Mapping[str, Any], report: Mapping[str, Any], name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    figures = _metrics(report)
    found = {
        "pearson": ("Pearson of cosine with WordNet path similarity, all pairs", figures.get("relational/pearson")),
        "pearson_lift": ("Pearson lift over the frozen backbone, all pairs", figures.get("relational/pearson_lift")),
        "pearson_lift_held_out": (
            "Pearson lift, held-out × held-out",
            figures.get("relational/held_out/pearson_lift"),
        ),
        "loss": ("validation loss", figures.get("val/loss")),
        "exact_match": ("exact match", figures.get("val/exact_match")),
    }
    results = [
        EvalResult(
            task_type="text2text-generation",
            task_name="definition → lemma",
            dataset_type="wordnet-3.0",
            dataset_name="WordNet 3.0",
            metric_type=kind,
            metric_name=title,
            metric_value=round(value, 6),
        )
        for kind, (title, value) in found.items()
        if value is not None
    ]
    hub = {"base_model": config["backbone"], "base_model_relation": "adapter"} if of_the_hub(config) else {}
    data = ModelCardData(
        language="en",
        license="apache-2.0",
        library_name="modulant",
        tags=["modulant", "t5", "wordnet", "residual-stream", config["modulator"]],
        model_name=PurePath(name).name if results else None,
        eval_results=results or None,
        **hub,
    )
    return data.to_yaml()


def _loading(name: str) -> str:
    return (
        "```python\nfrom modulators import load_modulated\n\n"
        f'model, tokenizer = load_modulated("{name}")\n'
        'ids = tokenizer("summarize: a domesticated carnivorous mammal", return_tensors="pt").input_ids\n'
        "print(tokenizer.decode(model.generate(ids, max_new_tokens=8)[0], skip_special_tokens=True))\n```\n\n"
        "Inside `with model.modulation.disabled():` the model is the backbone, bit for bit; "
        "`model.modulation.summary()` says what is attached."
    )


def _provenance(config: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    run, data = report.get("run") or {}, report.get("data") or {}
    lines = [f"- Backbone: {_backbone(config)}{_revision(config)}"]
    wordnet = data.get("wordnet")
    if wordnet:
        own = data.get("nltk_data", "") is not None  # older reports do not say
        bundled = "" if own else f" (the archive that modulant ships, SHA-256 {WORDNET_SHA256[:16]}…)"
        lines.append(
            f"- WordNet {wordnet}{bundled}: {data['entries']:,} entries, {data['held_out_entries']:,} of them held "
            f"out; {data['synsets']:,} synsets"
        )
    if geometry := config.get("geometry"):
        told = [f"{title} {_short(geometry[key])}" for key, title in _GEOMETRY.items() if geometry.get(key) is not None]
        lines.append(f"- Geometry before training: {geometry.get('kind')}" + "".join(f"; {item}" for item in told))
    if run:
        epochs = f"{run['epochs']} epoch{'s' if run['epochs'] != 1 else ''}"
        lines.append(f"- Training: {run['steps']:,} steps, {epochs}, seed {run['seed']}, {run['outcome']}")
        command = " ".join(_without_paths(run.get("command") or []))
        lines.append(f"- Command: `{command}`")
    versions = (report.get("environment") or {}).get("versions") or {}
    if versions:
        lines.append("- Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    return "\n".join(lines)


def _limits(kind: str, report: Mapping[str, Any]) -> str:
    lines = [
        "- One run, one seed: another one would give other figures.",
        "- Measured on WordNet's English definitions alone; nothing is known of other text or other tasks.",
        "- A lift of a correlation is no claim that the model knows more.",
    ]
    if kind == "LerpModulator":
        lines.append(
            "- Where its points were made from WordNet, a lift over the synsets they were made from is partly "
            "circular: look at held-out pairs, and at the controls."
        )
    if (report.get("run") or {}).get("outcome") not in (None, "finished"):
        lines.append("- The training did not end by itself.")
    return "\n".join(lines)


def _licence(config: Mapping[str, Any]) -> str:
    backbone = _backbone(config)
    return (
        f"The modulator's weights: Apache 2.0. The backbone ({backbone}) has a licence of its own. Trained on "
        'WordNet 3.0: "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. THIS SOFTWARE AND '
        'DATABASE IS PROVIDED "AS IS" AND PRINCETON UNIVERSITY MAKES NO REPRESENTATIONS OR WARRANTIES, EXPRESS OR '
        'IMPLIED."'
    )


def _backbone(config: Mapping[str, Any]) -> str:
    """The backbone's name; of a folder its last part."""
    name = str(config["backbone"])
    return name if of_the_hub(config) else PurePath(name).name


def _revision(config: Mapping[str, Any]) -> str:
    if revision := config.get("backbone_revision"):
        return f", revision {revision}"
    digests = config.get("backbone_sha256") or {}
    where = ", bundled with modulant" if config["backbone"] == "mini" else ", a local folder" if digests else ""
    return where + "".join(f"; {name}: SHA-256 {digest}" for name, digest in digests.items())


def _without_paths(command: Sequence[str]) -> list[str]:
    """A command line with absolute paths cut to their last part.

    >>> _without_paths(["train.py", "--output", "/home/me/runs/a", "--data.nltk_data=/data/wn", "t5/small"])
    ['train.py', '--output', '…/a', '--data.nltk_data=…/wn', 't5/small']
    """
    shown = []
    for argument in command:
        head, equals, value = argument.rpartition("=")
        if value.startswith(("/", "~", "\\")) or value[1:3] in (":\\", ":/"):
            value = f"…/{PurePath(value.replace(chr(92), '/')).name}"
        shown.append(head + equals + value)
    return shown


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    metrics = (report.get("run") or {}).get("metrics") or {}
    return {key: value["last"] for key, value in metrics.items() if value.get("last") is not None}


def _listed(layers: Sequence[int]) -> str:
    """
    >>> _listed([0, 1, 2, 3]), _listed([1, 3])
    ('0 … 3', '1, 3')
    """
    whole = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} … {layers[-1]}" if whole else ", ".join(map(str, layers))


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
