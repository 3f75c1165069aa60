"""For all pages: an interval such as [−0.003, +0.007] stays on one line."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a no-break space into each interval."""
    return re.sub(r"\[([−+]?[\d.]+), ([−+]?[\d.]+)\](?!\()", "[\\1,\N{NO-BREAK SPACE}\\2]", markdown)
