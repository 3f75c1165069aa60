"""What the arguments of callbacks may be, known without torch and lightning.

Each check is called by the constructor of the class that it is named after, and by the command line before anything
heavy is imported. Its parameters are some of the constructor's, by name.
"""

from collections.abc import Callable, Mapping, Sequence

from modulant.metrics.arguments import check_draws, check_window
from modulators.arguments import check_asking, check_scales

REFERENCES = ("base", "band", "null")


def check_alpha_convergence(every_n_steps: int, window: int, tolerance: float) -> None:
    if every_n_steps < 1:
        raise ValueError(f"AlphaConvergence: every_n_steps is {every_n_steps}; it must be at least 1")
    check_window(window, tolerance)


def check_relational_alignment(pairs: int | str, seed: int, bootstrap: int) -> None:
    if pairs != "all" and (isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 2):
        raise ValueError(f"RelationalAlignment: pairs is {pairs!r}; it must be 'all' or an integer of at least 2")
    if seed < 0:
        raise ValueError(f"RelationalAlignment: seed is {seed}; it must not be negative")
    if bootstrap != 0 and bootstrap < 40:
        raise ValueError(
            f"RelationalAlignment: bootstrap is {bootstrap}; it must be at least 40, for the ends of a 95% "
            "interval, or 0, which leaves it out"
        )


def check_pentachoron_health(
    reference: str | float, tolerance: float, patience: int, n: int, seed: int, null_repeats: int
) -> None:
    if isinstance(reference, str):
        if reference not in REFERENCES:
            raise ValueError(f"PentachoronHealth: reference is '{reference}'; it must be base, band, null or a number")
    elif not reference > 0:
        raise ValueError(f"PentachoronHealth: reference is {reference}; a CV is positive")
    if not tolerance > 0:
        raise ValueError(f"PentachoronHealth: tolerance is {tolerance}; it must be positive")
    if patience < 1:
        raise ValueError(f"PentachoronHealth: patience is {patience}; it must be at least 1")
    if seed < 0:
        raise ValueError(f"PentachoronHealth: seed is {seed}; it must not be negative")
    check_draws(n, null_repeats)


def check_run_checkpoint(every_n_train_steps: int, every_n_epochs: int, save_top_k: int) -> None:
    if every_n_train_steps < 0:
        raise ValueError(f"every_n_train_steps: at least 1, or 0 for the end of epochs, got {every_n_train_steps}")
    if every_n_epochs < 1:
        raise ValueError(f"every_n_epochs: at least 1, got {every_n_epochs}")
    if save_top_k < 1 and save_top_k != -1:
        raise ValueError(f"save_top_k: at least 1, or -1 to keep all checkpoints, got {save_top_k}")


def check_divergence(skip: int) -> None:
    if skip < 0:
        raise ValueError(f"Divergence: skip is {skip}; it must not be negative")


def check_talk(
    alpha_scales: Sequence[float],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    samples: int,
    seed: int,
    next_tokens: int,
) -> None:
    try:
        check_scales(alpha_scales)
        check_asking(temperature, top_p, max_new_tokens, samples, seed, next_tokens)
    except ValueError as error:
        raise ValueError(f"Talk: {error}") from error


# Class → its check, for the command line.
CHECKS: Mapping[str, Callable[..., None]] = {
    "AlphaConvergence": check_alpha_convergence,
    "Divergence": check_divergence,
    "PentachoronHealth": check_pentachoron_health,
    "RelationalAlignment": check_relational_alignment,
    "RunCheckpoint": check_run_checkpoint,
    "Talk": check_talk,
}
