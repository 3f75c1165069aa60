"""The command line: fit | validate | test | predict, from YAML files in configs/.

    python train.py --help
    python train.py fit --config field.yaml
    python train.py fit --config field.yaml --config t5_small.yaml --model.lr 5e-4 --output runs/mine
    python train.py fit --resume runs/mine
    python train.py validate --resume runs/mine

Nothing heavy is imported before the command line has been checked, so that an error in it is reported at once.
"""

import gc
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from callbacks.stopping.signals import Signals, Stopped, describe, exit_code, peer_lost
from cli import slurm
from cli.check import check
from cli.command import read_command
from cli.folder import is_child, is_first
from cli.help import say, version, wanted


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line; an error is one line on stderr and a non-zero exit (``--debug``: a traceback).

    Raises:
        SystemExit: the command line is wrong, or the run has failed or was interrupted.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in typed if word != "--debug"]
    if (page := wanted(words)) is not None:
        say(page)
        return
    if words == ["--version"]:
        say(f"modulant {version()}")
        return
    if words[:1] == ["--completion"]:
        _print_completion(words[1:])
        return
    before = sys.argv
    # Lightning runs this command line again for further devices, and the report quotes it.
    sys.argv = [str(Path(__file__).resolve()), *typed]
    gc.disable()  # until the run begins: a million objects of the libraries hold no garbage, and looking takes a second
    try:
        launched = "TORCHELASTIC_RUN_ID" in os.environ
        with Signals(_is_alone(), is_child(), launched, _nothing_started).watching():
            _run(words)
    except (Stopped, KeyboardInterrupt) as stopped:
        number = stopped.number if isinstance(stopped, Stopped) else 2
        _end_by_signal(number, "nothing was started")
    except SystemExit as exit_:
        if (signaled := getattr(exit_, "number", None)) is not None:
            _end_by_signal(signaled, _resume_line(exit_))
        raise
    except Exception as error:
        if len(words) != len(typed):
            raise
        if (rank := int(os.environ.get("LOCAL_RANK", "0"))) > 0:
            _wait_for_the_first_process()
            _end(f"error in process {rank}: {_message(error)}", 1)
        _end(f"error: {_message(error)}", 1)
    finally:
        sys.argv = before
        gc.unfreeze()
        gc.enable()


def _print_completion(words: list[str]) -> None:
    from cli.completion import SHELLS, script
    from probe import PROBES

    if len(words) != 1:
        _end(f"error: --completion: name a shell, one of {', '.join(SHELLS)}", 1)
    try:
        say(script(words[0], tuple(PROBES)))
    except ValueError as error:
        _end(f"error: {error}", 1)


def _end_by_signal(number: int, what: str) -> None:
    if is_child():  # the launcher kills all processes on any other code
        sys.exit(0)
    if line := _signal_line(number, what):
        print(line, file=sys.stderr, flush=True)
    sys.exit(exit_code(number))


def _signal_line(number: int, what: str) -> str:
    if not is_first():
        return ""
    requeued = slurm.requeue() if slurm.asks(number) else ""
    return f"{describe(number)}; {what}{requeued}"


def _nothing_started(number: int) -> str:
    return _signal_line(number, "nothing was started")


def _is_alone() -> bool:
    """Whether a launcher has started nobody beside this process."""
    return all(int(os.environ.get(name) or 1) == 1 for name in ("WORLD_SIZE", "SLURM_NTASKS"))


def _run(words: list[str]) -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "--help" in words or "-h" in words:
        from cli.running.run import help_all

        help_all([words[0], "--help"] if words[0] in ("fit", "validate", "test", "predict") else ["--help"])
        return
    command = slurm.resumed(read_command(words))
    config = check(command)
    if command.dry_run and not command.prints_config:
        from cli.dry_run.look import look

        look(command, config)
        return
    from cli.running.run import run

    folder = run(command, config)
    if command.controls is not None:
        from probes.controls.command import of_trained

        if code := of_trained(folder, command.controls):
            sys.exit(code)


def _wait_for_the_first_process() -> None:
    """Exit when the first process has ended, which has printed what is wrong for all; else return, to print it."""
    first = os.getppid()
    for _ in range(150):
        if os.getppid() != first:
            sys.exit(1)
        time.sleep(0.1)


def _message(error: Exception) -> str:
    """An error in one line: its text where that is meant for users, else its type and its place in the code too."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if peer_lost(error):
        notes = getattr(error, "__notes__", [])
        resume = f"; resume with: {notes[0]}" if notes else ""
        return f"another process of this run is gone, or its machine{resume} (--debug shows the traceback)"
    if notes := getattr(error, "__notes__", []) if type(error).__name__ == "StorageError" else []:
        text += f"; then resume with: {notes[0]}"
    if isinstance(error, ValueError | OSError | ImportError) or type(error).__name__ == "MisconfigurationException":
        return text or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}: {text or 'no message'} (--debug shows the traceback)"


def _resume_line(exit_: SystemExit) -> str:
    notes = getattr(exit_, "__notes__", [])
    return f"the run is saved; resume with: {notes[0]}" if notes else "nothing was saved"


def _end(line: str, code: int) -> None:
    print(line, file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
