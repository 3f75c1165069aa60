"""TensorBoard's curves, a second copy of what metrics.csv holds, which must not drown what went wrong in tracebacks."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from storage import storing

_WRITER_THREAD = "_AsyncWriterThread"  # TensorBoard's class


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger; on a disk that will not take its file, one `StorageError` that names the folder.

    TensorBoard writes in a thread: what goes wrong there comes up at a later call, wrapped by Lightning into an error
    about the figure's type. A run that has failed already is not failed again by this logger's end.
    """

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
