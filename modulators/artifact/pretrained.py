"""A trained modulator as a folder: weights as safetensors, its configuration, and a model card for people.

`PretrainedModulator` has the three methods that users of Hugging Face's libraries look for. They are not inherited from
huggingface_hub's ModelHubMixin: that one keeps its settings in a `config.json`, which it looks for on the hub before
anything else, removes from a folder that it writes to, and writes there anew.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from modulant.backbones.t5 import load_config, load_t5, stream_of
from modulant.backbones.tokenizers import first_line
from modulant.storage import storing, write_whole
from modulators.artifact.card import model_card, of_the_hub, published
from modulators.artifact.files import (
    CARD,
    CONFIG,
    FILES,
    WEIGHTS,
    backbone_digest,
    check_backbone_weights,
    check_stream,
    read_config,
    read_modulator,
)
from modulators.base import Modulator
from modulators.fused import FusedLerp
from modulators.hooks import attach
from modulators.registry import known


@dataclass(frozen=True, eq=False)
class PretrainedModulator:
    """A modulator with what its artefact says of it.

    Attributes:
        modulator: on the CPU, in eval mode, without gradients if it was loaded.
        about: what `modulator_config.json` holds.
        card: the model card, Markdown with a YAML front matter.
    """

    modulator: Modulator
    about: Mapping[str, Any]
    card: str

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "PretrainedModulator":
        """Reads an artefact, without its backbone. `attach` brings `.modulator` and a T5 together.

        Args:
            folder_or_hub_id: a run, a folder that `save_pretrained` wrote, or a repository of the hub.
            revision: branch, tag or commit of that repository.
            token: for the hub; as huggingface_hub has it, and the next three.
            cache_dir: where downloads are kept.
            force_download: even what is there already.
            local_files_only: nothing is downloaded.

        Raises:
            ValueError: no artefact there, of a class that is not known, or whose tensors are damaged or not what its
                configuration says.
        """
        folder = _folder(
            folder_or_hub_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        stored = read_config(folder)
        modulator = read_modulator(folder, stored).requires_grad_(False).eval()
        card = folder / CARD
        text = card.read_text(encoding="utf-8") if card.is_file() else model_card(stored.values)
        return cls(modulator, stored.values, text)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the three files, each whole or not at all. What else is in the folder stays.

        Raises:
            ValueError: a modulator of a class that cannot be loaded again.
            StorageError: the disk will not take it.
        """
        kind = type(self.modulator).__name__
        if kind not in known():
            raise ValueError(f"a {kind} cannot be saved as an artefact; known are {', '.join(known())}")
        folder = Path(folder)
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        state = self.modulator.state_dict()
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        weights = save(tensors, metadata={"format": "pt"})
        write_whole(folder / WEIGHTS, weights)
        config = {**self.about, "sha256": hashlib.sha256(weights).hexdigest()}
        write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        write_whole(folder / CARD, self.card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "A modulator of modulant",
        branch: str | None = None,
        create_pr: bool = False,
        backbone: str | None = None,
    ) -> str:
        """Uploads exactly the three files, in one commit; makes the repository if it is not there.

        Args:
            repo_id: such as ``name/my-modulator``. The card says it.
            private: of a repository that is made; None: as the organisation has it.
            token: None: the one that `hf auth login` has left.
            commit_message: its title.
            branch: None: main.
            create_pr: as a pull request.
            backbone: where others find the backbone, if the modulator was trained on a folder: a hub id.

        Returns:
            The commit's address.

        Raises:
            ValueError: the backbone is a folder, which nobody else has; no access, no network, or the hub refuses.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        published = self._published(repo_id, backbone)
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            published.save_pretrained(folder)
            try:
                repo = api.create_repo(repo_id, private=private, exist_ok=True)
                commit = api.create_commit(
                    repo.repo_id,
                    [CommitOperationAdd(name, Path(folder) / name) for name in FILES],
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"push_to_hub: {repo_id}: {first_line(error)}") from error
        return str(commit.commit_url)

    def _published(self, repo_id: str, backbone: str | None) -> "PretrainedModulator":
        """With the names under which others find it and its backbone."""
        about = dict(self.about)
        if backbone is not None:
            about |= {"backbone": backbone, "backbone_sha256": None, "backbone_revision": None}
        elif about["backbone"] != "mini" and not of_the_hub(about):
            raise ValueError(
                f"push_to_hub: the backbone is the folder {about['backbone']!r}, which nobody else has; "
                "say backbone='google-t5/t5-small' or where else on the hub it is"
            )
        return replace(self, about=about, card=published(self.card, repo_id, str(self.about["backbone"]), backbone))


def save_modulator(
    modulator: Modulator,
    folder: str | Path,
    backbone: str,
    layers: list[int],
    report: Mapping[str, Any] | None = None,
    geometry: Mapping[str, Any] | None = None,
    backbone_revision: str | None = None,
) -> None:
    """Write a modulator so that `load_modulated` finds it.

    Args:
        modulator: of one of this package's classes, or a registered one.
        folder: made if it is not there.
        backbone: what the modulator was trained on: ``mini``, a folder or a hub id.
        layers: the encoder blocks that it is attached to.
        report: what the run's `report.json` holds, for the card.
        geometry: where its geometric embeddings come from, if it has any.
        backbone_revision: the commit of a backbone of the hub; loading asks for it.

    Raises:
        ValueError: a modulator of a class that `load_modulated` does not know.
        StorageError: the disk will not take it.
    """
    modulator = modulator.unfused if isinstance(modulator, FusedLerp) else modulator
    about = {
        "modulator": type(modulator).__name__,
        "init_args": modulator.init_args,
        "backbone": backbone,
        "backbone_revision": backbone_revision,
        "backbone_sha256": backbone_digest(backbone),
        "layers": layers,
        "stream": asdict(modulator.stream),
        "geometry": dict(geometry) if geometry else None,
        "parameters": sum(p.numel() for p in modulator.parameters()),
    }
    card = model_card(about, report, name=Path(folder).name)
    PretrainedModulator(modulator, about, card).save_pretrained(folder)


def write_card(run: str | Path, controls: str | Path | None = None) -> str:
    """Writes the card of a run's artefact anew: from its report as it is now, and with its controls.

    Args:
        run: the run folder.
        controls: a folder of `probe.py controls`.

    Returns:
        The card.

    Raises:
        ValueError: one of the folders does not hold what it should.
        StorageError: the disk will not take it.
    """
    folder = Path(run) / "modulator"
    found = None if controls is None else _read_json(Path(controls) / "figures.json", "--output of probe.py controls")
    report = _read_json(Path(run) / "report.json", "a run of train.py")
    text = model_card(read_config(folder).values, report, found, folder.name)
    write_whole(folder / CARD, text)
    return text


def load_modulated(
    folder_or_hub_id: str | Path,
    backbone: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> tuple[Any, Any]:
    """A frozen T5 with the modulator of an artefact attached, and its tokenizer.

    Args:
        folder_or_hub_id: a run, what `save_modulator` wrote, or a hub repository that holds those files.
        backbone: another place of the same backbone than the artefact names; its weights are taken as they are.
        revision: branch, tag or commit of a hub repository. The backbone's own is in the artefact.
        token: for the hub.

    Returns:
        (model, tokenizer), in eval mode. The model has two attributes more: ``modulator``, the module, which is not
        moved along with the model to another device, and ``modulation``, its handle.

    Raises:
        ValueError: no artefact there, of a class that is not known, for a backbone of other sizes or weights, or whose
            tensors are damaged or not what its configuration says.
    """
    folder = _folder(folder_or_hub_id, revision=revision, token=token)
    stored = read_config(folder)
    place = backbone or stored.values["backbone"]
    its_revision = None if backbone else stored.values.get("backbone_revision")
    check_stream(folder, stored, stream_of(load_config(place, its_revision)), place)
    if backbone is None:
        check_backbone_weights(folder, stored)
    modulator = read_modulator(folder, stored).requires_grad_(False).eval()
    model, tokenizer = load_t5(place, its_revision)
    handle = attach(model, modulator, stored.values["layers"])
    # Beside the T5, not in it: its state dict stays the base's.
    object.__setattr__(model, "modulator", modulator)
    object.__setattr__(model, "modulation", handle)
    return model, tokenizer


def _folder(folder_or_hub_id: str | Path, **how: Any) -> Path:
    """The files, on this machine; of a run its `modulator/`."""
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        inner = folder / "modulator"
        return inner if not (folder / CONFIG).is_file() and (inner / CONFIG).is_file() else folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder_or_hub_id), allow_patterns=list(FILES), **how))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(f"{folder_or_hub_id}: neither a folder nor a hub repository at hand ({reason})") from error


def _read_json(file: Path, right: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({first_line(error)}); name {right}") from error
