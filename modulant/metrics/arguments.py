"""Checks of the metrics' arguments, without torch: callbacks and the command line use them too."""


def check_window(window: int, tolerance: float) -> None:
    """Checks the arguments of `AlphaWindow`.

    Raises:
        ValueError: a window of fewer than two checks, or a tolerance that is not positive.
    """
    if window < 2:
        raise ValueError(f"AlphaWindow: window is {window}; movement needs at least 2 checks")
    if not tolerance > 0:
        raise ValueError(f"AlphaWindow: tolerance is {tolerance}; it must be positive")


def check_draws(n: int, null_repeats: int) -> None:
    """Checks the arguments of `PentachoronCV`.

    Raises:
        ValueError: too few draws, or too few Gaussian clouds, for a standard deviation.
    """
    if n < 2 or null_repeats < 2:
        raise ValueError(f"PentachoronCV: n is {n} and null_repeats {null_repeats}; both must be at least 2")
