"""The configuration that a run has saved, as a command that resumes the run reads it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.configuration.files import Config, read_yaml
from cli.configuration.schema import Merged, short
from modulant.storage.secrets import hidden_values

# What decides which entries are held out, as far as the configuration says it. The tokenizer and WordNet's archive
# decide too, and may have moved: for these the checkpoint's fingerprint is compared, once the entries are known.
DECIDE_THE_SPLIT = ("split", "seed", "val_fraction", "test_fraction", "matching")


@dataclass(frozen=True)
class SavedConfig(Config):
    """A run's config.yaml: what a command that resumes the run changes is merged over it.

    Values that were hidden when it was saved are not in its content: they are given again, or are the defaults.

    Attributes:
        dirpath: of a run of an earlier version, where its checkpoints were written, if that was another folder.
    """

    dirpath: str | None = None

    @classmethod
    def of_run(cls, run: Path) -> "SavedConfig":
        """The configuration in a run folder.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        path = run / "config.yaml"
        if not path.is_file():
            raise ValueError(f"--resume: {run} has no config.yaml; name the run's configuration with --config")
        content = read_yaml(path)
        checkpoint = content.get("checkpoint")
        dirpath = checkpoint.get("dirpath") if isinstance(checkpoint, Mapping) else None
        # two that earlier versions took and did not follow
        places = (*hidden_values(content), ("trainer", "default_root_dir"), ("checkpoint", "dirpath"))
        for place in places:
            content = _without(content, place)
        return cls(str(path), path, content, dirpath)


def _without(content: Mapping[str, Any], place: Sequence[str]) -> Mapping[str, Any]:
    """A copy that lacks the value at a place."""
    key, *rest = place
    if not rest:
        return {name: value for name, value in content.items() if name != key}
    return {**content, key: _without(content[key], rest)} if isinstance(content.get(key), Mapping) else content


class Split:
    """What decided which entries a run holds out.

    Args:
        saved: the run's configuration alone, merged.
    """

    def __init__(self, saved: Merged) -> None:
        self._before = dict(_decides(saved))

    def check(self, merged: Merged) -> None:
        """Refuse a change: entries that the run has trained on would count as held out.

        Raises:
            ValueError: one, by its key.
        """
        now = dict(_decides(merged))
        for key, before in self._before.items():
            if now[key] != before:
                raise ValueError(
                    f"{key} is {short(now[key])}, and the run's own is {short(before)}; it decides which entries are "
                    "held out, and entries that the run was trained on must not become held out: leave it as it is"
                )


def _decides(merged: Merged) -> Iterator[tuple[str, Any]]:
    _, values, name = merged.at("data")
    yield "data", name
    for key in DECIDE_THE_SPLIT:
        yield f"data.{key}", values.get(key)
