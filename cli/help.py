"""Help pages that import nothing heavy: our own options first, then the keys of a configuration with their comments."""

import os
import re
import sys
from pathlib import Path

from cli.command import SUBCOMMANDS
from cli.configuration.files import CONFIGS, configurations, find_config

_WHAT = {
    "fit": "train a modulator, or resume a training",
    "validate": "measure an untrained or a trained modulator on the held-out entries",
    "test": "the same under test/ keys",
    "predict": "ask prompts, of the original and of the modulated model",
}

_OWN = """\
  --config FILE          a configuration; a bare name is looked up in configs/; of several, later ones win
  --output DIR           run folder: new, empty or a run's; without it runs/<configuration>/version_<n>
  --resume DIR           resume that run from its newest checkpoint that verifies; configurations and options beside it
                         are merged over the run's own
  --trust FILE           execute a Python file of yours and let configurations name its modulators; may be repeated
  --controls NAME,NAME   after a fit, train these controls of it, and put their lifts beside its own
  --dry-run[=json]       check everything, say what would be done (parameters, steps, memory, folder), write nothing
  --print_config         print the whole configuration, which is a configuration again, and end
  --debug                show a traceback where something fails
  --version              print the version
  --help, --help all     this page; every option there is, Lightning's too"""

_OF_PREDICT = """\
  --prompt TEXT          a definition to ask; as often as there are prompts
  --data.prompts FILE    a prompt a line; - is standard input: lines that are piped in, or a person at a terminal"""

EXIT_CODES = """\
exit codes:
  0    done
  1    an error, one line on standard error
  75   saved after USR1 (SLURM), to be resumed
  130  ended by Ctrl-C     143  by SIGTERM; a fit is saved before"""

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.+]+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<comment>.*))?$")
_TRANSPARENT = {"init_args"}


def say(page: str) -> None:
    """Print a page; a reader at the other end of a pipe may close it before the end."""
    try:
        print(page, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more when it ends


def version() -> str:
    """Of this package, as it is installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("modulant")
    except PackageNotFoundError:
        return "(a checkout, not installed)"


def general() -> str:
    """What ``--help`` alone shows."""
    subcommands = "\n".join(f"  {name:<10} {_WHAT[name]}" for name in SUBCOMMANDS)
    return f"""\
usage: python train.py {{{",".join(SUBCOMMANDS)}}} --config FILE [options]

{subcommands}

options:
{_OWN}
  --KEY VALUE            any key of a configuration, e.g. --model.lr 5e-4 (python train.py fit --help lists them)

configurations (configs/):
{_configurations()}

examples:
  python train.py fit --config field.yaml
  python train.py fit --config field.yaml --config t5_small.yaml --model.lr 5e-4 --output runs/mine
  python train.py fit --resume runs/mine
  python train.py validate --resume runs/mine
  python train.py predict --resume runs/mine --config talk.yaml --prompt "a small dog"
  python train.py --completion bash         # prints a script: completion in bash, zsh or fish

{EXIT_CODES}"""


def of_subcommand(subcommand: str, configs: list[str]) -> str:
    """What ``fit --help`` shows: our own options, then the keys of a configuration with their comments."""
    path = find_config(configs[0]) if configs else CONFIGS / ("talk.yaml" if subcommand == "predict" else "field.yaml")
    asks = f"\n{_OF_PREDICT}" if subcommand == "predict" else ""
    keys = "\n".join(f"  {name:<44} {comment}".rstrip() for name, comment in keys_of(path))
    return f"""\
usage: python train.py {subcommand} --config FILE [options]

{subcommand}: {_WHAT[subcommand]}

options:
{_OWN}{asks}

keys of {path.name} (--KEY VALUE; with --config X these are X's):
{keys}

{EXIT_CODES}"""


def keys_of(path: Path) -> list[tuple[str, str]]:
    """Every key of a configuration as its option with the value there, and the comment on its line."""
    found: list[tuple[str, str]] = []
    above: list[tuple[int, str]] = []  # indentation and key
    for line in path.read_text(encoding="utf-8").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        above = [(i, key) for i, key in above if i < indent]
        value, comment = match["value"], match["comment"] or ""
        names = [key for _, key in above if key not in _TRANSPARENT]
        if value is None:
            above.append((indent, match["key"]))
            continue
        if match["key"] != "class_path":
            names.append(match["key"])
        found.append((f"--{'.'.join(names)} {value}", comment))
    return found


def _configurations() -> str:
    lines = []
    for path in sorted(configurations(), key=lambda path: (path.parent != CONFIGS, path)):
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        name = path.relative_to(CONFIGS).as_posix()
        lines.append(f"  {name:<30} {re.split(r'(?<=[a-z)0])[.] ', first)[0].rstrip('.')}")
    return "\n".join(lines)


def wanted(argv: list[str]) -> str | None:
    """The page that a command line asks for, or None; ``--help all`` is for the parser."""
    asks = [i for i, word in enumerate(argv) if word in ("-h", "--help")]
    if not asks or argv[asks[0] + 1 : asks[0] + 2] == ["all"]:
        return None
    if argv[0] not in SUBCOMMANDS:
        return general()
    configs = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word in ("--config", "-c")]
    configs += [word.partition("=")[2] for word in argv if word.startswith("--config=")]
    return of_subcommand(argv[0], configs)
