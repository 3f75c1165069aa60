"""What the hub is asked before transformers asks it."""

import os

_NO_CONNECTION = ("ConnectError", "ConnectTimeout")  # of the hub's HTTP client, which is not always the same package


def check_reachable(name: str, revision: str | None = None) -> None:
    """Ask the hub once for a configuration that is not cached, as huggingface_hub would go on for half a minute.

    Whatever else is wrong with `name`, transformers finds and says.

    Raises:
        ConnectionError: the hub cannot be reached.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if os.path.isdir(name) or constants.HF_HUB_OFFLINE:
        return
    try:
        if try_to_load_from_cache(name, "config.json", revision=revision) is None:
            url = hf_hub_url(name, "config.json", revision=revision)
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:
        if type(error).__name__ in _NO_CONNECTION:
            raise ConnectionError(f"{constants.ENDPOINT} cannot be reached: {error}") from error
