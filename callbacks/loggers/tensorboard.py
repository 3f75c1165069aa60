"""TensorBoard logger with a layout for Custom Scalars like that of the report, and one-line errors.

The Custom Scalars page shows α of all layers in one chart, one chart per expert, the lift with its interval, the CV
with its references, and the loss.
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary

from modulant.storage import storing

_WRITER_THREAD = "_AsyncWriterThread"  # TensorBoard's class


class RunTensorBoard(TensorBoardLogger):
    """Lightning's TensorBoard logger; a failed write raises one `StorageError` that names the folder.

    TensorBoard writes in a thread: its errors surface at a later call, wrapped by Lightning into an error about the
    value's type. After a failed run, errors of `finalize` are ignored.
    """

    @rank_zero_only
    def add_layout(self, experts: Sequence[str] | None) -> None:
        """Write the layout of the Custom Scalars page; a resumed run writes it again.

        Args:
            experts: names of the modulator's experts; empty without a modulator, None of a language model.
        """
        with storing(self._file):
            self.experiment.add_custom_scalars(layout(experts))

    @rank_zero_only
    def add_run_files(self, folder: Path, figures: Mapping[str, str], step: int) -> None:
        """Add the run's configuration as text and its figures as images.

        Args:
            figures: name → path of a PNG file, relative to the folder.
        """
        config = folder / "config.yaml"
        with storing(self._file):
            if config.is_file():
                text = "".join(f"    {line}\n" for line in config.read_text(encoding="utf-8").splitlines())
                self.experiment.add_text("config", text, step)
            for name, path in figures.items():
                image = Summary.Image(encoded_image_string=(folder / path).read_bytes())  # the PNG file as it is
                summary = Summary(value=[Summary.Value(tag=f"figures/{name}", image=image)])
                self.experiment._get_file_writer().add_summary(summary, step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with storing(self._file):
            super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        with storing(self._file):
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if status == "success":
            with storing(self._file):
                super().finalize(status)
        else:
            with contextlib.suppress(OSError):
                super().finalize(status)

    @property
    def _file(self) -> Path:
        return Path(self.log_dir) / "events"


def layout(experts: Sequence[str] | None) -> dict[str, dict[str, list[Any]]]:
    """Layout for SummaryWriter.add_custom_scalars: category → chart → kind and patterns of tags."""
    loss = {"training and validation": [r"^(train|val)/loss$"]}
    if experts is None:
        text = {"bits per byte of held-out text": [r"^val/bits_per_byte(_annealed)?$"]}
        return _multilines({"Text": text, "Loss": loss})
    several = experts if len(experts) > 1 else ()
    alpha = {"α of all layers": [r"^alpha/layer_\d+$"]}
    alpha |= {f"α of expert {name}": [rf"^alpha/layer_\d+_{re.escape(name)}$"] for name in several}
    inside = {"relative push by layer": [r"^\w+/layer_\d+/push$"]}
    inside |= {"gate by layer and expert": [r"^\w+/layer_\d+_\w+/gate$"]} if several else {}
    correlations = [r"^relational/(pearson|original/pearson|static/pearson|random/pearson)$"]
    lines = {
        "Alpha": alpha if experts else {},
        "Lift": {
            "lift of Pearson by population": [r"^relational/((train|mixed|validation|held_out)/)?pearson_lift$"],
            # not a margin chart, which needs value and bounds at the same steps: the interval is known only at the end
            "lift on held-out pairs, its 95% interval at the end": [
                r"^relational/held_out/pearson_lift(_low|_high)?$",
            ],
            "Pearson beside the original, static and random encoders": correlations,
        },
        "Pentachora": {"CV, its band and its Gaussian null": [r"^pentachoron/(cv|reference|low|high|null)$"]},
        "Inside the modulator": inside if experts else {},
        "Loss": loss,
    }
    return _multilines(lines)


def _multilines(lines: Mapping[str, Mapping[str, list[str]]]) -> dict[str, dict[str, list[Any]]]:
    return {
        category: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for category, charts in lines.items()
        if charts
    }


@contextlib.contextmanager
def quiet_writers() -> Iterator[None]:
    """Context without tracebacks of I/O errors from TensorBoard's threads; the logger raises them in one line."""
    usual = threading.excepthook

    def hook(arguments: Any) -> None:
        if not (type(arguments.thread).__name__ == _WRITER_THREAD and isinstance(arguments.exc_value, OSError)):
            usual(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
