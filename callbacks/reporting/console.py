"""Console lines of a run: what is trained on what before it begins, and its figures when it ends."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.logs import announce
from callbacks.reporting.values import learns, stop_reason, what_happened
from modulant.reports.run.folder import report_of
from modulant.reports.wording import counted, layers_named, number, parts_of

# Key of a figure, its name, and its decimals or whether it has a sign.
_FIGURES = (
    ("bits_per_byte", "bits per byte", 4),
    ("loss", "loss", 3),
    ("token_accuracy", "token accuracy", 4),
    ("exact_match", "exact match", 4),
)
_GEOMETRY = (
    ("alpha/mean", "alpha", False),
    ("relational/pearson", "Pearson", False),
    ("relational/pearson_lift", "lift", True),
    ("pentachoron/cv", "CV", False),
)


class RunConsole(L.Callback):
    """A few lines on standard output, on rank zero, from which a log shows what a run was."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            announce(trainer, opening(pl_module))
            if far := getattr(pl_module, "far", None):
                announce(trainer, far)
            if about := data_line(trainer):
                announce(trainer, about)
            announce(trainer, f"run folder {trainer.default_root_dir}")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if type(callback).__name__ == "FirstValidation" and callback.figures and trainer.global_step == 0:
                announce(trainer, f"before training: {quality_line(callback.figures, 'val')}")

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        report = _report(Path(trainer.default_root_dir), "report")
        where = f"; {report}" if report else ""
        announce(trainer, f"ended after {_steps(trainer)}: {stop_reason(trainer)}{where}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        outcome, reason = what_happened(exception)
        if trainer.state.fn != TrainerFn.FITTING or outcome != "interrupted" or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        try:
            report = report_of(folder)
        except ValueError:
            return
        if (report["run"]["outcome"], report["run"]["steps"]) != (outcome, trainer.global_step):
            return  # nothing was trained: it is an earlier one
        checks = [found["last"] for name in ("relational", "pentachoron") if (found := report[name])]
        steps = sorted({check["step"] for check in checks if check})
        measured = f"; measured last at step {steps[-1]:,}" if steps else "; nothing measured since" if checks else ""
        announce(trainer, f"ended after {_steps(trainer)}: {reason}{measured}; {_report(folder, 'report')}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._announce_figures(trainer, "val")

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._announce_figures(trainer, "test")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        stage = TrainerFn(stage).value
        folder = Path(trainer.default_root_dir)
        found = _report(folder, f"report_{stage}", "report")
        if stage in ("validate", "test") and found:
            announce(trainer, f"report: {found}")

    @staticmethod
    def _announce_figures(trainer: L.Trainer, stage: str) -> None:
        # on every rank: reading the figures may reduce them over ranks
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        parts = [quality_line(figures, stage)]
        parts += [f"{name} {number(figures[key], 4, signed)}" for key, name, signed in _GEOMETRY if key in figures]
        announce(trainer, "  ".join(part for part in parts if part))


def _steps(trainer: L.Trainer) -> str:
    return counted(trainer.global_step, "step")


def _report(folder: Path, *names: str) -> Path | None:
    """The first report of these names, as HTML if it exists, else as Markdown."""
    pages = [folder / f"{name}.{kind}" for name in names for kind in ("html", "md")]
    return next((page for page in pages if page.is_file()), None)


def opening(module: L.LightningModule) -> str:
    """What is trained, on what, in one line."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in module.parameters()) - trained
    learner = learns(module)
    name = learner or type(module).__name__
    on = f" on {module.backbone}" if learner and hasattr(module, "backbone") else ""
    layers = list(getattr(module, "layers", []))
    where = f", layers {layers_named(layers)}" if layers else ""
    rest = f", {frozen:,} frozen" if frozen else ""
    return f"{name}{on}: {trained:,} parameters trained{rest}{where}"


def data_line(trainer: L.Trainer) -> str:
    """The training data in one line, if the DataModule describes it."""
    describe = getattr(getattr(trainer, "datamodule", None), "describe", None)
    about: dict[str, Any] = describe() if callable(describe) else {}
    if "train_tokens" in about:
        return (
            f"{about['task']} over {about['corpus']}: {about['train_tokens']:,} tokens to train on, "
            f"{about['val_tokens']:,} for validation, vocabulary {about['vocabulary']:,}, context {about['context']}"
        )
    if not {"entries", "held_out_entries", "wordnet", "task"} <= about.keys():
        return ""
    return (
        f"{about['task']} over WordNet {about['wordnet']}: {about['entries']:,} entries, "
        f"{about['held_out_entries']:,} of them held out{parts_of(about)}"
        + (f", by {about['split']}" if "split" in about else "")
    )


def quality_line(figures: dict[str, float], stage: str) -> str:
    """Loss and accuracies of a stage in one line."""
    found = [(f"{stage}/{key}", name, digits) for key, name, digits in _FIGURES]
    return "  ".join(f"{name} {number(figures[key], digits)}" for key, name, digits in found if key in figures)
