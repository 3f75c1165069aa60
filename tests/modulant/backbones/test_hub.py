"""A hub that does not answer, or knows no such model: one line, at once."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modulant.backbones.t5 import load_config
from modulant.backbones.tokenizers import load_tokenizer
from probes.alignment.encoders import open_encoder


@contextmanager
def hub(status: int) -> Iterator[str]:
    """Answers every request with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", "RepoNotFound")  # as the hub has it for a name that is nobody's
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(None, "cannot be reached"), (404, "not a valid model identifier"), (401, "not a valid model")],
)
def test_one_line_at_once(
    status: int | None, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with nobody() if status is None else hub(status) as address:
        url = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as the suite has it
        began = time.monotonic()
        with pytest.raises(
            ValueError, match=rf"^model\.backbone: 'nobody/mistyped' cannot be loaded .*{reason}"
        ) as error:
            load_config("nobody/mistyped")
        if status is None:
            with pytest.raises(ValueError, match=r"data.tokenizer: .* has no readable tokenizer .*cannot be reached"):
                load_tokenizer("nobody/mistyped", key="data.tokenizer")
            with pytest.raises(ValueError, match="cannot be reached"):
                open_encoder("nobody/mistyped")
        assert time.monotonic() - began < 20, "huggingface_hub tries again for half a minute"
    assert "\n" not in str(error.value)
    assert not caplog.records
