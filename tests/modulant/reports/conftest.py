"""A browser to look at pages with."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chrome() -> str:
    """A Chromium: the environment's CHROME, or one on the path."""
    named = (os.environ.get("CHROME"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in named if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser: install chromium, or name one in the environment variable CHROME")
    return found
