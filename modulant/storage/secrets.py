"""Secrets that a command line or a configuration may hold, hidden before anything is written."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

HIDDEN = "***"
# A key that sorts, and an experiment's name, are no secrets.
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[._-])(api[_-]?key|(?<!sort_by_)(?<!experiment_)key|token|secret|passw(or)?d|credentials?|auth)$"
)
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})\b")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line in which the values of secret-looking options, tokens and passwords in addresses are hidden.

    >>> without_secrets(["fit", "--hub.token", "abc", "--api_key=abc", "--data.tokenizer=t5"])
    ['fit', '--hub.token', '***', '--api_key=***', '--data.tokenizer=t5']
    """
    shown = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("-") and _SECRET_NAME.search(name) is not None
        if hide_next and not argument.startswith("--"):
            shown.append(HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_hidden_in(argument))
        hide_next = secret and not equals
    return shown


def without_secret_values(text: str) -> str:
    """A configuration in YAML in which the values of secret-looking keys, tokens and passwords in addresses are hidden.

    >>> without_secret_values("logger:\\n  api_key: abc\\n  url: https://me:pw@host/x\\n")
    "logger:\\n  api_key: '***'\\n  url: https://***@host/x\\n"
    >>> without_secret_values("tags:\\n- hf_0123456789abcdef0\\n")
    "tags:\\n- '***'\\n"
    """
    content = yaml.safe_load(text)
    hidden = _without(content)
    return text if hidden == content else yaml.safe_dump(hidden, sort_keys=False, allow_unicode=True)


def hidden_values(content: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Paths in a configuration of the values that were hidden in it; a list counts as one value.

    >>> list(hidden_values({"a": {"token": "***", "url": "http://***@x"}, "b": [1, {"key": "***"}]}))
    [('a', 'token'), ('a', 'url'), ('b',)]
    """
    for key, value in content.items():
        if isinstance(value, Mapping) and key != "dict_kwargs":
            yield from ((str(key), *path) for path in hidden_values(value))
        elif _holds_hidden(value):
            yield (str(key),)


def _hidden_in(text: str) -> str:
    return _USER_IN_URL.sub(f"{HIDDEN}@", _SECRET_VALUE.sub(HIDDEN, text))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: HIDDEN if _SECRET_NAME.search(str(key)) and _could_be_secret(inner) else _without(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return _hidden_in(value) if isinstance(value, str) else value


def _could_be_secret(value: Any) -> bool:
    return value not in (None, "") and not isinstance(value, bool)


def _holds_hidden(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_hidden, value.values()))
    return any(map(_holds_hidden, value)) if isinstance(value, list) else isinstance(value, str) and HIDDEN in value
