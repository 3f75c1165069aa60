"""TensorBoard's curves, a second copy of what metrics.csv holds: laid out as the report is, and quiet about trouble.

Its Custom Scalars page shows α of all layers in one chart, one chart an expert, the lift with its interval, the CV
beside what it is compared with, and the loss.
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
    """Lightning's logger; on a disk that will not take its file, one `StorageError` that names the folder.

    TensorBoard writes in a thread: what goes wrong there comes up at a later call, wrapped by Lightning into an error
    about the figure's type. A run that has failed already is not failed again by this logger's end.
    """

    @rank_zero_only
    def lay_out(self, experts: Sequence[str]) -> None:
        """Write the layout of the Custom Scalars page; a resumed run writes the same again.

        Args:
            experts: of the modulator; none where there is no modulator.
        """
        with storing(self._file):
            self.experiment.add_custom_scalars(layout(experts))

    @rank_zero_only
    def show(self, folder: Path, figures: Mapping[str, str], step: int) -> None:
        """The run's configuration as text and its figures as images, as they lie in its folder.

        Args:
            figures: name → path of a PNG file, as seen from the folder.
        """
        config = folder / "config.yaml"
        with storing(self._file):
            if config.is_file():
                text = "".join(f"    {line}\n" for line in config.read_text(encoding="utf-8").splitlines())
                self.experiment.add_text("config", text, step)
            for name, path in figures.items():
                image = Summary.Image(encoded_image_string=(folder / path).read_bytes())  # as it is, not drawn again
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


def layout(experts: Sequence[str]) -> dict[str, dict[str, list[Any]]]:
    """Category → chart → kind and patterns of whole tags, in the form that SummaryWriter takes."""
    several = experts if len(experts) > 1 else ()
    alpha = {"α of all layers": [r"^alpha/layer_\d+$"]}
    alpha |= {f"α of expert {name}": [rf"^alpha/layer_\d+_{re.escape(name)}$"] for name in several}
    correlations = [r"^relational/(pearson|original/pearson|static/pearson|random/pearson)$"]
    lines = {
        "Alpha": alpha if experts else {},
        "Lift": {
            "lift of Pearson by population": [r"^relational/((train|mixed|held_out)/)?pearson_lift$"],
            # no margin chart: it wants value and ends at the same steps, and the interval is known at the end alone
            "lift on held-out pairs, its 95% interval at the end": [
                r"^relational/held_out/pearson_lift(_low|_high)?$",
            ],
            "Pearson beside the original, static and random encoders": correlations,
        },
        "Pentachora": {"CV, its band and its Gaussian null": [r"^pentachoron/(cv|reference|low|high|null)$"]},
        "Loss": {"training and validation": [r"^(train|val)/loss$"]},
    }
    return {
        category: {chart: ["Multiline", tags] for chart, tags in charts.items()}
        for category, charts in lines.items()
        if charts
    }


@contextlib.contextmanager
def quiet_writers() -> Iterator[None]:
    """No traceback on stderr from TensorBoard's threads for what the disk said: the logger raises it in one line."""
    usual = threading.excepthook

    def hook(arguments: Any) -> None:
        if not (type(arguments.thread).__name__ == _WRITER_THREAD and isinstance(arguments.exc_value, OSError)):
            usual(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = usual
