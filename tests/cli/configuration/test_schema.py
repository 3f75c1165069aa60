"""cli/schema.json is what the constructors say, and what Lightning knows; it is a JSON Schema that our files fit."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.configuration.files import configurations
from cli.configuration.schema import load
from modulant.settings import Interval, PositiveInt, accepts, checked, describe, schema_of
from tests.runs import ROOT


def test_it_is_current() -> None:
    """After a change of a constructor, `python scripts/schema.py` writes it and the comments in configs/ again."""
    done = subprocess.run(
        [sys.executable, "scripts/schema.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(load())


@pytest.mark.parametrize("path", sorted(configurations()), ids=lambda path: path.name)
def test_an_editor_accepts_every_configuration(path: Path) -> None:
    jsonschema.Draft202012Validator(load()).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "text", ["model: {class_path: evil.Foo}", "trainer: {max_epoch: 1}", "data: {init_args: {a: 1}}"]
)
def test_an_editor_refuses_what_the_command_line_refuses(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(load()).validate(yaml.safe_load(text))


def test_only_classes_may_be_named() -> None:
    """A function, or a module with all that is in it, could be called with what a stranger likes."""
    for path in load()["$defs"]:
        package, _, name = path.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(package), name)), path


def test_the_trainers_arguments_are_lightnings() -> None:
    from lightning.pytorch import Trainer

    assert (
        list(load()["properties"]["trainer"]["properties"]) == list(inspect.signature(Trainer.__init__).parameters)[1:]
    )


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers(), max_size=3)
)


@given(values)
def test_values_are_accepted_as_the_standard_has_it(value: Any) -> None:
    """Against jsonschema, but for two things: 3.0 is no integer here, and NaN and infinities lie in no interval."""
    hints = (
        int,
        bool | None,
        PositiveInt,
        Annotated[float, Interval(exclusiveMinimum=0, maximum=1)],
        Literal["a", "b"] | PositiveInt,
        list[PositiveInt],
        Literal[0] | Annotated[int, Interval(minimum=40)],
    )
    if isinstance(value, float) and (value.is_integer() or value != value or abs(value) == float("inf")):
        return
    for hint in hints:
        schema = schema_of(hint)
        assert accepts(schema, value) == jsonschema.Draft202012Validator(schema).is_valid(value), (schema, value)


def test_not_a_number_lies_in_no_interval() -> None:
    for value in (float("nan"), float("inf"), -float("inf")):
        assert not accepts(schema_of(Annotated[float, Interval(minimum=0)]), value)
        assert accepts({"type": "number"}, value)


class Thing:
    @checked
    def __init__(self, size: PositiveInt, kind: Literal["a", "b"] = "a", rest: list[PositiveInt] | None = None) -> None:
        self.size, self.kind, self.rest = size, kind, rest


def test_a_constructor_refuses_what_its_annotations_exclude() -> None:
    assert Thing(3, rest=[1, 2]).rest == [1, 2]
    for arguments, said in (
        ({"size": 0}, "size is 0; it must be an integer of at least 1"),
        ({"size": True}, "size is True; it must be an integer of at least 1"),
        ({"size": 1, "kind": "c"}, "kind is 'c'; it must be a or b"),
        ({"size": 1, "rest": [0]}, "rest is [0]; it must be a list (an integer of at least 1 each) or null"),
    ):
        with pytest.raises(ValueError, match="^" + said.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[")):
            Thing(**arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="size"):
        Thing()  # type: ignore[call-arg]


def test_words() -> None:
    above_zero = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    assert describe(above_zero) == "a number above 0 and at most 1"
    assert describe({"anyOf": [{"enum": ["x"]}], "title": "an x"}) == "an x"
