"""The parts of a run: which command trained it from which step on, and by which configuration.

A run that is resumed has several. The commands stand as comments at the head of the configuration that they had:
config.yaml, and config_until_<checkpoint>.yaml where a resume changed the settings.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_HEAD = re.compile(r"# from step (\d+): (.*)\n")
Part = dict[str, Any]  # from_step, command, config (the name of its file)


def head(step: int, command: Sequence[str]) -> str:
    """The line that says a part's command.

    >>> head(12, ["train.py", "fit", "--resume", "my run"])
    "# from step 12: train.py fit --resume 'my run'\\n"
    """
    return f"# from step {step}: {' '.join(shlex.join(command).splitlines())}\n"


def extended(before: str, step: int, command: Sequence[str]) -> str:
    """A head and one more part; those that began no earlier are given up.

    >>> extended("# from step 0: a\\n# from step 8: b\\n", 8, ["c"])
    '# from step 0: a\\n# from step 8: c\\n'
    """
    kept = (line for line in before.splitlines(keepends=True) if int(_HEAD.fullmatch(line)[1]) < step)  # type: ignore[index]
    return "".join(kept) + head(step, command)


def taken_apart(text: str) -> tuple[str, str]:
    """The head of a configuration's text, and the rest."""
    lines = text.splitlines(keepends=True)
    n = next((i for i, line in enumerate(lines) if not _HEAD.fullmatch(line)), len(lines))
    return "".join(lines[:n]), "".join(lines[n:])


def head_of(folder: Path) -> str:
    """The head of a run's config.yaml; of a run older than these, the command that its report gives."""
    try:
        found, _ = taken_apart((folder / "config.yaml").read_text(encoding="utf-8"))
        run = {} if found else json.loads((folder / "report.json").read_text(encoding="utf-8"))["run"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    if found or run.get("stage") != "fit" or "--resume" in (command := run.get("command") or ["--resume"]):
        return found
    return head(0, command)


def parts_of(folder: Path) -> list[Part]:
    """What a run folder's configurations say, in the order of training; steps that were given up later are left out."""
    until = [
        list(_parts_in(file.name, taken_apart(file.read_text(encoding="utf-8", errors="replace"))[0]))
        for file in folder.glob("config_until_*.yaml")
    ]
    until.sort(key=lambda parts: (parts[0]["from_step"], parts[0]["config"]) if parts else (0, ""))
    found: list[Part] = []
    for part in [part for parts in until for part in parts] + list(_parts_in("config.yaml", head_of(folder))):
        found = followed_by(found, part)
    return found


def followed_by(parts: Sequence[Part], part: Part) -> list[Part]:
    """Parts and one more, which takes the place of those that began no earlier."""
    return [*(earlier for earlier in parts if earlier["from_step"] < part["from_step"]), part]


def _parts_in(file: str, lines: str) -> Iterator[Part]:
    for step, command in _HEAD.findall(lines):
        try:
            words = shlex.split(command)
        except ValueError:  # written by hand
            words = command.split()
        yield {"from_step": int(step), "command": words, "config": file}
