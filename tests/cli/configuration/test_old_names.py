"""Class paths in configurations of earlier versions: public names, and the modules that defined the classes then."""

import pytest
import yaml

from tests.cli.conftest import Call

PUBLIC = {
    "model": "modulators.ModulatedT5",
    "modulator": "modulators.FieldModulator",
    "data": "datamodules.WordNetDataModule",
}


def configuration(names: dict[str, str], wordnet: str) -> str:
    model = {"class_path": names["model"], "init_args": {"modulator": {"class_path": names["modulator"]}}}
    data = {"class_path": names["data"], "init_args": {"nltk_data": wordnet}}
    trainer = {"accelerator": "cpu"}
    if "logger" in names:
        trainer["logger"] = {"class_path": names["logger"], "init_args": {"project": "old"}}
    return yaml.safe_dump({"trainer": trainer, "model": model, "data": data})


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"logger": "callbacks.RunWandb"},
        {"modulator": "modulators.field.FieldModulator"},
        {"modulator": "modulators.lerp.LerpModulator"},
        {"model": "modulators.seq2seq.ModulatedT5"},
        {"data": "datamodules.wordnet.WordNetDataModule"},
    ],
    ids=lambda old: ", ".join(old.values()) or "all public",
)
def test_an_old_name_is_the_class_that_it_named(
    call: Call, wordnet: str, old: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("old") / "config.yaml"
    names = PUBLIC | old
    file.write_text(configuration(names, wordnet))
    said = call("fit", "--config", str(file), "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert f"learns       {names['modulator'].rpartition('.')[2]} in layers" in said.out
    assert "definition → lemma" in said.out
