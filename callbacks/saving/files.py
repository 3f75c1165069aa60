"""Write checkpoint files atomically, with a SHA-256 that is verified when they are read; Lightning's plugin for it.

Lightning writes a checkpoint to the system's temporary folder and moves it; across file systems that is a copy, which a
kill leaves incomplete. Here the temporary file is in the same folder and flushed to disk before it is renamed, and its
SHA-256 is stored beside it: without one, bit flips in tensor data load silently.
"""

import contextlib
import re
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import distributed

from modulant.storage import replace_durably, sha256_of, storing, write_beside, write_whole

FOLDER = "checkpoints"
SUFFIX = ".ckpt"
STEP_IN_NAME = re.compile(r"step_(\d+)")


class CheckpointError(ValueError):
    """A checkpoint cannot be trusted, or must not be written; the message is one line."""


def digest_path(path: Path) -> Path:
    """Path of a checkpoint's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def save_atomically(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint and its SHA-256 so that a kill at any moment leaves the old or the new pair, verifiable.

    Two files cannot be renamed at once. So the digest file first lists the old and the new digest, then the checkpoint
    is replaced, then the digest file is reduced to the new one; a checkpoint verifies if any listed digest is its own.

    Raises:
        StorageError: writing failed; the old pair is intact, and no other file is left. The checkpoint folder is
            created if missing, but not the run folder: if that is gone, so is the run.
    """
    with storing(path):
        path.parent.mkdir(exist_ok=True)
    digests = digest_path(path)
    temporary = write_beside(path, lambda file: torch.save(checkpoint, file))
    try:
        line = f"{sha256_of(temporary)}  {path.name}\n"
        old = digests.read_text() if path.is_file() and digests.is_file() else ""
        write_whole(digests, old + line)
        replace_durably(temporary, path)
        if old:
            write_whole(digests, line)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_verified(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Verify a checkpoint's SHA-256 and load it; unpickles only tensors and plain values.

    Raises:
        CheckpointError: the file or its digest is missing, they do not match, or it cannot be loaded.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    digests = digest_path(path)
    if not digests.is_file():
        raise CheckpointError(f"{path}: no {digests.name} beside it, so it cannot be verified")
    listed = [line.split()[0] for line in digests.read_text(errors="replace").splitlines() if line.strip()]
    if sha256_of(path) not in listed:
        raise CheckpointError(f"{path}: damaged, its SHA-256 is not the one in {digests.name}")
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path}: does not load with weights_only=True: it holds more than tensors and plain values, and is not "
            "loaded, as that would run its code"
        ) from error
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: does not load with weights_only=True: {reason[0]}") from error
    if not isinstance(checkpoint, dict) or "global_step" not in checkpoint:
        raise CheckpointError(f"{path}: not a training checkpoint, it has no 'global_step'")
    return checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin over `save_atomically` and `load_verified`, for local folders.

    Args:
        read: a checkpoint that was read when it was chosen, and its path. It is loaded from here, as a run that trains
            may have replaced the file since, and every rank loads rank 0's.
    """

    def __init__(self, read: tuple[Path, dict[str, Any]] | None = None) -> None:
        super().__init__()
        self._read = read

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if storage_options is not None:
            raise CheckpointError(f"{path}: storage_options are not supported, got {storage_options!r}")
        save_atomically(checkpoint, _local(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        read, self._read = self._read, None
        if read is not None and read[0] == _local(path):
            checkpoint = [read[1]]
            if distributed.is_available() and distributed.is_initialized():
                distributed.broadcast_object_list(checkpoint, 0)
            return checkpoint[0]
        # whatever Lightning asks for, code in a checkpoint is never run
        return load_verified(_local(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        local = _local(path)
        # in this order a kill leaves a digest without a checkpoint, which nothing looks at
        local.unlink(missing_ok=True)
        digest_path(local).unlink(missing_ok=True)


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are written to local folders only")
    return Path(path)


def newest_checkpoint(folder: str | Path) -> Path:
    """Path of the checkpoint that `read_newest` returns."""
    return read_newest(folder)[0]


def read_newest(folder: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the verified checkpoint with the most steps in `folder/checkpoints`; print a line for each rejected one.

    Steps are read from the name (`step_00000015`), otherwise from the file; ties are resolved by modification time. A
    run that trains meanwhile replaces its checkpoints: after one is gone, the folder is listed again.

    Raises:
        FileNotFoundError: there is none.
    """
    found = Path(folder) / FOLDER
    rejected: set[Path] = set()
    while True:
        candidates = [path for path in found.glob(f"*{SUFFIX}") if path.is_file()] if found.is_dir() else []
        for path in sorted(set(candidates) - rejected, key=_age, reverse=True):
            try:
                return path, load_verified(path)
            except (CheckpointError, FileNotFoundError) as error:
                if not path.exists():
                    break
                warn(f"skipped {error}")
                rejected.add(path)
        else:
            n = len(candidates)
            what = f"none of the {n} checkpoints in {found} verifies" if n else f"no checkpoint in {found}"
            raise FileNotFoundError(f"{what}: nothing to resume from")


def _age(path: Path) -> tuple[int, float]:
    try:
        return step_of(path), path.stat().st_mtime
    except FileNotFoundError:  # gone since it was listed
        return -1, 0.0


def step_of(path: Path) -> int:
    """Step of a checkpoint, from its name or its contents; -1 if it cannot be read."""
    if match := STEP_IN_NAME.search(path.name):
        return int(match[1])
    try:
        return int(load_verified(path)["global_step"])
    except CheckpointError:
        return -1


@rank_zero_only
def warn(line: str) -> None:
    """Print one line on stderr, on rank 0."""
    print(line, file=sys.stderr)
