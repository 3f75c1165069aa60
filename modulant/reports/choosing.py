"""Which figures a run may be chosen by: the pairs that its headline is about are not to be among them."""

HEADLINE = "relational/held_out/"  # pairs within the test part, or of all held-out synsets where there is none
_CHOICE = "relational/validation/"
_WITHOUT_PAIRS = ("preservation",)


def check_choice(key: str, setting: str, test_fraction: float | None = None) -> None:
    """Refuse to choose by the figures that are reported.

    Args:
        key: of the figure.
        setting: that names it, such as checkpoint.monitor.
        test_fraction: of the data, where it is known.

    Raises:
        ValueError: the figure is of the reported pairs alone, or there is no such figure without a test part.
    """
    if key.startswith(HEADLINE):
        raise ValueError(
            f"{setting} is {key}: it would choose by the pairs that the report's headline is about; set "
            f"data.test_fraction, and name {_CHOICE}{key.removeprefix(HEADLINE)}"
        )
    if key.startswith(_CHOICE) and test_fraction == 0:
        raise ValueError(f"{setting} is {key}: there are such pairs only with a test part; set data.test_fraction")


def includes_reported(key: str) -> bool:
    """Whether a figure is of pairs with synsets of the reported part, among others.

    >>> includes_reported("relational/nouns/pearson"), includes_reported("relational/validation/pearson_lift")
    (True, False)
    """
    first, _, rest = key.partition("/")
    return first == "relational" and rest.split("/")[0] not in ("train", "validation", *_WITHOUT_PAIRS)


def caveat(key: str) -> str:
    """A sentence about such a figure."""
    return (
        f"`{key}`, which the result was chosen by, includes pairs with held-out synsets: the choice has seen some of "
        "what the headline reports."
    )
