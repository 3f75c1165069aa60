"""The dashboard as code: a Weights & Biases workspace with a run's main charts, in reading order.

Charts name keys that a run logs (a test compares them with a real run), over the trainer's step. One chart shows all
layers by a pattern, so that it fits a backbone of any depth.
"""

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from probes.pages import check_output_file, write_text

DESCRIPTION = """\
Create a workspace in a Weights & Biases project: alpha of all layers in one chart and expert by expert, the lift of the
correlation with WordNet and its 95% interval, the pentachoron CV and its band, loss and answers, the run's figures.
Log in with `wandb login` or WANDB_API_KEY; --dry-run and --output need no network."""
EXAMPLES = """\
examples:
  python probe.py dashboard --entity my-team --project modulant
  python probe.py dashboard --entity my-team --project modulant --experts k1,k2,k3
  python probe.py dashboard --entity my-team --project modulant --output spec.json"""

STEP = "trainer/global_step"
FIGURES = ("alpha", "alpha_final", "inside", "loss", "relational", "bands", "pentachoron")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entity", required=True, help="user or team that the project belongs to")
    parser.add_argument("--project", default="modulant", help="(%(default)s)")
    parser.add_argument("--name", default="modulant", help="of the workspace (%(default)s)")
    parser.add_argument(
        "--experts", default="k1,k2,k4", metavar="A,B,…", help="a chart for each (%(default)s, the field's)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the specification as JSON, and create nothing")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the specification there, and create nothing")


def main(args: argparse.Namespace) -> int:
    """Create the workspace, or print what would be created.

    Raises:
        ValueError: wandb-workspaces is not installed, or W&B refuses or cannot be reached.
    """
    if args.output is not None:
        check_output_file(args.output, ("entity", "project", "spec"))
    try:
        space = workspace(
            args.entity, args.project, args.name, [x.strip() for x in args.experts.split(",") if x.strip()]
        )
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'modulant[wandb]'") from error
    if args.dry_run or args.output is not None:
        text = json.dumps(specification(space), indent=2) + "\n"
        if args.output is None:
            print(text, end="")
        else:
            print(write_text(args.output, text))
        return 0
    try:
        space.save()
    except Exception as error:  # its client, its transport and its server raise errors of many kinds
        raise ValueError(f"W&B: {' '.join(str(error).split()) or type(error).__name__}") from error
    print(space.url)
    return 0


def workspace(entity: str, project: str, name: str, experts: Sequence[str]) -> Any:
    """The workspace, not saved yet."""
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=[_section(title, panels) for title, panels in charts(experts)],
        settings=ws.WorkspaceSettings(x_axis=STEP, ignore_outliers=False, max_runs=20),
        auto_generate_panels=False,
    )


def charts(experts: Sequence[str]) -> list[tuple[str, list[Any]]]:
    """Sections by title, each with its charts, in reading order."""
    wr: Any = import_module("wandb_workspaces.reports.v2")  # it exports by stars, which type checkers do not see

    def line(title: str, *keys: str, pattern: str | None = None, y: str | None = None) -> Any:
        return wr.LinePlot(
            title=title, x=STEP, y=list(keys), metric_regex=pattern, title_x="step", title_y=y, smoothing_type="none"
        )

    def with_interval(title: str, key: str) -> Any:
        return line(title, key, f"{key}_low", f"{key}_high", y="modulated − original")

    alpha = [line("α of all layers", pattern=r"^alpha/layer_\d+$", y="α")]
    alpha += [line(f"α of expert {name}", pattern=rf"^alpha/layer_\d+_{name}$", y="α") for name in experts]
    alpha += [line("mean α", "alpha/mean", y="α")]
    return [
        ("Alpha: where injection strengths settle", alpha),
        (
            "Relational alignment with WordNet",
            [
                with_interval(
                    "lift of Pearson, held-out synsets, with its 95% interval", "relational/held_out/pearson_lift"
                ),
                with_interval("lift of Pearson, held-out nouns", "relational/held_out/nouns/pearson_lift"),
                with_interval("lift of Pearson, held-out verbs", "relational/held_out/verbs/pearson_lift"),
                with_interval("lift of Pearson, all synsets, with its 95% interval", "relational/pearson_lift"),
                line("Pearson and Spearman", "relational/pearson", "relational/spearman"),
                line("preservation (mean cosine with the original)", "relational/preservation"),
            ],
        ),
        (
            "Pentachoron CV",
            [
                line(
                    "CV, its reference and band", *(f"pentachoron/{key}" for key in ("cv", "reference", "low", "high"))
                ),
                line("CV and its Gaussian null", "pentachoron/cv", "pentachoron/null"),
                line("z against the null", "pentachoron/z"),
            ],
        ),
        (
            "Inside the modulator",
            [
                line("relative push by layer", pattern=r"^\w+/layer_\d+/push$", y="‖h′ − h‖ / ‖h‖"),
                line("gate by layer and expert", pattern=r"^field/layer_\d+_\w+/gate$", y="gate"),
                line("share of degenerate simplices", pattern=r"^field/layer_\d+_\w+/degenerate$", y="share"),
            ],
        ),
        (
            "Loss and answers",
            [
                line("loss", "train/loss", "val/loss", y="nats per token"),
                line("answers", "val/token_accuracy", "val/exact_match", y="share of right ones"),
            ],
        ),
        ("Figures of the end", [wr.MediaBrowser(title=name, media_keys=[f"figures/{name}"]) for name in FIGURES]),
    ]


def _section(title: str, panels: list[Any]) -> Any:
    import wandb_workspaces.workspaces as ws

    rows = -(-len(panels) // 3)
    return ws.Section(
        name=title, panels=panels, is_open=True, layout_settings=ws.SectionLayoutSettings(columns=3, rows=rows)
    )


def specification(space: Any) -> dict[str, Any]:
    """The request that W&B would get, without the random ids in it."""
    view = json.loads(space._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return _without_ids({key: view[key] for key in ("entity", "project", "displayName", "spec") if key in view})


def _without_ids(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_ids(value) for key, value in node.items() if key not in ("__id__", "id")}
    return [_without_ids(value) for value in node] if isinstance(node, list) else node
