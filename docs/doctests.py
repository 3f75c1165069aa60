"""For the reference pages: shows the doctests of a docstring as code, which Markdown alone takes for quotations."""

from textwrap import indent
from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Puts the example that ends a docstring under `Examples:`, the section that griffe knows."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None and "Examples:" not in obj.docstring.value:
            text, prompt, example = obj.docstring.value.partition("\n>>> ")
            if prompt:
                obj.docstring.value = f"{text.rstrip()}\n\nExamples:\n{indent(prompt.lstrip() + example, '    ')}"
