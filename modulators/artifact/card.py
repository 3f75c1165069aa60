"""The model card of an artefact: Markdown behind a YAML front matter, as the hub reads it.

A pure function of the artefact's configuration, the run's report (`report.json`) and the figures of `probe.py controls`
(`figures.json`). What was not measured is left out, except for controls: the card says that none were run, since a lift
without them is no result. No path of the machine it was trained on gets into a card.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from modulant.assets import WORDNET_SHA256
from modulant.reports import render
from modulant.reports.choosing import caveat, includes_reported
from modulant.reports.populations import population_names
from modulant.reports.run import rows
from modulant.reports.wording import number, parts_of
from modulators.artifact import sections

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
# Name of a result on the hub → its title there, and its key in the report.
_RESULTS = {
    "pearson": ("Pearson of cosine with WordNet path similarity, all pairs", "relational/pearson"),
    "pearson_lift": ("Pearson lift over the frozen backbone, all pairs", "relational/pearson_lift"),
    "pearson_lift_held_out": ("Pearson lift, {held_out}", "relational/held_out/pearson_lift"),
    "loss": ("validation loss", "val/loss"),
    "exact_match": ("exact match", "val/exact_match"),
}


def model_card(
    config: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    controls: Mapping[str, Any] | None = None,
    name: str = "modulator",
) -> str:
    """The card.

    Args:
        config: content of `modulator_config.json`.
        report: content of the run's `report.json`; without it there are no figures.
        controls: content of `figures.json` in a folder of `probe.py controls`.
        name: what `load_modulated` is called with: the artefact's folder, or a hub id.
    """
    report = sections.as_of_result(report or {})
    run, data = report.get("run") or {}, report.get("data") or {}
    relational = report.get("relational") or {}
    versions = (report.get("environment") or {}).get("versions") or {}
    return render.markdown(
        "card",
        front_matter=_front_matter(config, report, name),
        kind=config["modulator"],
        backbone=_backbone(config),
        family=config.get("family"),
        parameters=config.get("parameters"),
        layers=_listed(config["layers"]),
        name=name,
        correlations=sections.correlations(relational),
        parts_of_speech=rows.parts_of_speech(relational),
        others=sections.others(relational),
        intervals=bool(relational.get("interval")),
        sampled=relational.get("pairs") not in (None, "all"),
        task=sections.task(report),
        reference=sections.reference(report),
        **sections.alpha(report.get("alpha") or {}),
        controls=sections.controls((controls or {}).get("controls") or {}, relational),
        verdicts=(controls or {}).get("verdicts") or [],
        revision=_revision(config),
        data=data,
        parts=parts_of(data),
        bundled=WORDNET_SHA256[:16] if data.get("nltk_data", "") is None else "",  # older reports do not say
        geometry=_geometry(config.get("geometry") or {}),
        run=run,
        command=" ".join(_without_paths(run.get("command") or [])),
        resumed=[(part["from_step"], " ".join(_without_paths(part["command"]))) for part in run.get("parts", [])[1:]],
        chosen_by=caveat(monitor) if (monitor := run.get("monitor")) and includes_reported(monitor) else "",
        versions=", ".join(f"{package} {version}" for package, version in versions.items() if version),
    )


def published(card: str, repo_id: str, local: str, backbone: str | None = None) -> str:
    """A card with the names that are valid on the hub.

    Args:
        card: as `model_card` wrote it, perhaps edited since.
        repo_id: the repository that it goes to.
        local: the artefact's name of its backbone.
        backbone: the backbone's name on the hub, if that is another.
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
    """Whether the backbone is on the hub under its name."""
    return config["backbone"] != "mini" and not config.get("backbone_sha256")


def _front_matter(config: Mapping[str, Any], report: Mapping[str, Any], name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metrics, family = (report.get("run") or {}).get("metrics") or {}, config.get("family")
    held_out = population_names(report.get("relational") or {})["held_out"]
    found = {kind: (title, (metrics.get(key) or {}).get("last")) for kind, (title, key) in _RESULTS.items()}
    results = [
        EvalResult(
            task_type="text2text-generation" if family is None else "feature-extraction",
            task_name="definition → lemma" if family is None else "definitions",
            dataset_type="wordnet-3.0",
            dataset_name="WordNet 3.0",
            metric_type=kind,
            metric_name=title.format(held_out=held_out),
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
        tags=["modulant", family or "t5", "wordnet", "residual-stream", config["modulator"]],
        model_name=PurePath(name).name if results else None,
        eval_results=results or None,
        **hub,
    )
    return data.to_yaml()


def _geometry(geometry: Mapping[str, Any]) -> list[str]:
    said = [f"{title} {_short(geometry[key])}" for key, title in _GEOMETRY.items() if geometry.get(key) is not None]
    return [str(geometry.get("kind")), *said] if geometry else []


def _backbone(config: Mapping[str, Any]) -> str:
    """The backbone's name; for a folder, its last part."""
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


def _listed(layers: Sequence[int]) -> str:
    """Layers in few words.

    >>> _listed([0, 1, 2, 3]), _listed([1, 3])
    ('0 … 3', '1, 3')
    """
    whole = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} … {layers[-1]}" if whole else ", ".join(map(str, layers))


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
