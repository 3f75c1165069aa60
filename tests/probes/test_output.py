"""Where a probe is told to write: never over what is not its own, and said before anything is measured."""

import json
from pathlib import Path

import pytest

import probe
from probes.pages import check_output, check_output_file

# A command line up to --output, and a file of its own.
FOLDERS = {
    "alignment": (["--model", "mini"], {"model": "mini", "clouds": {}, "population": {}}),
    "stability": (["mini"], {"model": "mini", "figures": {}, "population": {}}),
    "runs": (["runs/field/version_0"], {"first": "a", "differs": [], "runs": []}),
}
FILES = {
    "talk": (["mini", "--prompt", "a dog"], '{"prompt": "a dog", "original": {}, "modulated": {}}\n'),
    "dashboard": (["--entity", "somebody"], '{\n  "entity": "a",\n  "project": "b",\n  "spec": {}\n}\n'),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("file", ["report.md", "{}.json", "{}.md"])
def test_other_files_are_never_written_over(
    name: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / file.format(name)
    other.write_text('{"mine": 1}')
    assert probe.main([name, *FOLDERS[name][0], "--output", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(
        f"error: --output: {tmp_path} holds other files ({other.name}) and nothing that probe.py"
    )
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
    assert other.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("name", FOLDERS)
def test_its_own_folder_and_an_empty_one_are_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    check_output(name, tmp_path)
    check_output(name, tmp_path / "new" / "one")
    other = next(key for key in FOLDERS if key != name)
    (tmp_path / f"{other}.json").write_text(json.dumps(FOLDERS[other][1], indent=2))
    (tmp_path / f"{other}.md").touch()
    check_output(name, tmp_path)  # two probes into one folder
    (tmp_path / f"{name}.png").touch()
    with pytest.raises(ValueError, match=rf"holds other files \({name}\.png\)"):
        check_output(name, tmp_path)
    (tmp_path / f"{name}.json").write_text(json.dumps(FOLDERS[name][1], indent=2))
    check_output(name, tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--output: .*cannot be a folder, as .*file is a file"):
        check_output("runs", tmp_path / "file" / "runs")


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_never_written_over(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "notes.json"
    for text in ("my notes\n", '{"mine": 1}', "{\n"):
        file.write_text(text)
        assert probe.main([name, *FILES[name][0], "--output", str(file)]) == 2
        assert capsys.readouterr().err == (
            f"error: --output: {file} is there already, and is no output of this command; name another\n"
        )
        assert file.read_text() == text
    assert probe.main([name, *FILES[name][0], "--output", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "keys"), [("talk", ("prompt", "original", "modulated")), ("dashboard", ("entity", "project", "spec"))]
)
def test_a_file_of_its_own_is_written_again(name: str, keys: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    check_output_file(file, keys)
    for text in ("", FILES[name][1], FILES[name][1] * 2 if name == "talk" else FILES[name][1]):
        file.write_text(text)
        check_output_file(file, keys)
