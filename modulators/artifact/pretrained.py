"""Save, load and publish a trained modulator: a folder with safetensors weights, a configuration and a model card.

`PretrainedModulator` has the three methods that Hugging Face's libraries use. They are not inherited from
huggingface_hub's ModelHubMixin, which keeps its settings in a `config.json`: it looks for that file on the hub before
anything else, and deletes and rewrites it in a folder that it saves to.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from modulant.backbones.families import family_of, parts_of, stream_of
from modulant.backbones.loading import read_config as read_backbone_config
from modulant.backbones.opening import open_model
from modulant.backbones.t5 import load_config, load_t5
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
    check_family,
    check_stream,
    check_weights_of_loaded,
    read_config,
    read_modulator,
)
from modulators.base import Modulator
from modulators.fused import FusedLerp
from modulators.hooks import ModulatorHandle, attach
from modulators.registry import registered_names


@dataclass(frozen=True, eq=False)
class PretrainedModulator:
    """A modulator with its configuration and model card.

    Attributes:
        modulator: if loaded: on the CPU, in eval mode, without gradients.
        about: the contents of `modulator_config.json`.
        card: the model card, Markdown with YAML front matter.
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
        """Load an artefact without its backbone; `attach` its `.modulator` to a T5.

        Args:
            folder_or_hub_id: a run folder, a folder written by `save_pretrained`, or a hub repository.
            revision: branch, tag or commit of that repository.
            token: for the hub; this and the next three are huggingface_hub's arguments.
            cache_dir: folder for downloads.
            force_download: download again what is cached.
            local_files_only: download nothing.

        Raises:
            ValueError: there is no artefact, its class is not registered, or its tensors are damaged or not those that
                its configuration describes.
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
        """Write the three files, each atomically. Other files in the folder are left alone.

        Raises:
            ValueError: the modulator's class is not registered, so it could not be loaded again.
            StorageError: writing failed.
        """
        kind = type(self.modulator).__name__
        if kind not in registered_names():
            raise ValueError(f"a {kind} cannot be saved as an artefact; registered are {', '.join(registered_names())}")
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
        """Upload exactly the three files in one commit; create the repository if it does not exist.

        Args:
            repo_id: such as ``name/my-modulator``; also written into the card.
            private: visibility of a new repository; None: the organisation's default.
            token: None: the one stored by `hf auth login`.
            commit_message: title of the commit.
            branch: None: main.
            create_pr: open a pull request instead of committing to the branch.
            backbone: hub id of the backbone; required if the modulator was trained on a local folder.

        Returns:
            URL of the commit.

        Raises:
            ValueError: the backbone is a local folder, or the upload failed: no access, no network, or refused.
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
        """Copy with the hub ids of the modulator and its backbone."""
        about = dict(self.about)
        if backbone is not None:
            about |= {"backbone": backbone, "backbone_sha256": None, "backbone_revision": None}
        elif about["backbone"] != "mini" and not of_the_hub(about):
            raise ValueError(
                f"push_to_hub: the backbone is the local folder {about['backbone']!r}, which others cannot load; "
                "give its hub id, such as backbone='google-t5/t5-small'"
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
    family: str | None = None,
) -> None:
    """Save a modulator as an artefact for `load_modulated`.

    Args:
        modulator: of a shipped or registered class.
        folder: created if missing.
        backbone: the backbone it was trained on: ``mini``, a folder or a hub id.
        layers: the encoder blocks that it is attached to.
        report: contents of the run's `report.json`, for the card.
        geometry: provenance of its geometric embeddings, if it has any.
        backbone_revision: commit of a hub backbone; loading requests it.
        family: the backbone's ``model_type``, where it is no whole T5.

    Raises:
        ValueError: the modulator's class is not registered.
        StorageError: writing failed.
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
        "split": ((report or {}).get("data") or {}).get("split"),
        **({} if family is None else {"family": family}),
    }
    card = model_card(about, report, name=Path(folder).name)
    PretrainedModulator(modulator, about, card).save_pretrained(folder)


def write_card(run: str | Path, controls: str | Path | None = None) -> str:
    """Rewrite the card of a run's artefact from its current report, and with its controls.

    Args:
        run: the run folder.
        controls: output folder of `probe.py controls`.

    Returns:
        The card.

    Raises:
        ValueError: a required file in one of the folders is missing or cannot be read.
        StorageError: writing failed.
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
    """Load a frozen T5, encoder or causal model with an artefact's modulator attached, and its tokenizer.

    Args:
        folder_or_hub_id: a run folder, a folder written by `save_modulator`, or a hub repository of these files.
        backbone: overrides where the artefact says the backbone is; the weights found there are not checked.
        revision: branch, tag or commit of the artefact's hub repository. The backbone's revision is in the artefact.
        token: for the hub.

    Returns:
        (model, tokenizer), in eval mode. The model has two additional attributes: ``modulator``, the module, which
        moves with the model to another device or dtype, and ``modulation``, its handle.

    Raises:
        ValueError: there is no artefact, its class is not registered, the backbone has other sizes or weights, or its
            tensors are damaged or not those that its configuration describes.
    """
    folder = _folder(folder_or_hub_id, revision=revision, token=token)
    stored = read_config(folder)
    place = backbone or stored.values["backbone"]
    its_revision = None if backbone else stored.values.get("backbone_revision")
    whole_t5 = stored.values.get("family") is None
    config = load_config(place, its_revision) if whole_t5 else read_backbone_config(place, its_revision)
    if not whole_t5:
        check_family(folder, stored, config.model_type, place)
    check_stream(folder, stored, stream_of(config), place)
    if backbone is None:
        check_backbone_weights(folder, stored)
    modulator = read_modulator(folder, stored).requires_grad_(False).eval()
    if whole_t5:
        model, tokenizer = load_t5(place, its_revision)
    else:
        opened = open_model(place, "lm" if family_of(config)[0].causal else None, revision=its_revision)
        model, tokenizer = opened.model, opened.tokenizer
    handle = attach(model, modulator, stored.values["layers"])
    # Not submodules: the model's state dict stays that of the base model.
    object.__setattr__(model, "modulator", modulator)
    object.__setattr__(model, "modulation", handle)
    return model, tokenizer


def attach_pretrained(
    model: nn.Module,
    folder_or_hub_id: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
) -> ModulatorHandle:
    """Attach an artefact's modulator to a model that is loaded already, such as a ``SentenceTransformer``.

    As `attach` does: the model keeps its class, its methods and its state dict.

    Args:
        model: of transformers, of the artefact's family and sizes, or what holds one such and has its ``config``.
        folder_or_hub_id: a run folder, a folder written by `save_modulator`, or a hub repository of these files.
        revision: branch, tag or commit of that repository.
        token: for the hub.

    Returns:
        The handle, which also lives as long as the model: `disabled`, `scaled`, `remove`, and its ``modulator``.

    Raises:
        ValueError: there is no artefact, its class is not registered, its tensors are damaged or not those that its
            configuration describes; the model holds no transformer or several, or one of another family, of other
            sizes, or from files with other weights. Where that cannot be known there is a warning instead.
    """
    folder = _folder(folder_or_hub_id, revision=revision, token=token)
    stored = read_config(folder)
    try:
        parts = parts_of(model)
    except ValueError as error:
        raise ValueError(f"attach_pretrained: {error}") from error
    origin = str(getattr(model.config, "name_or_path", ""))
    name = origin or type(model).__name__
    check_family(folder, stored, parts.family.model_type, name)
    check_stream(folder, stored, parts.shape.stream, name)
    modulator = read_modulator(folder, stored).requires_grad_(False).eval()
    check_weights_of_loaded(folder, stored, origin)
    return attach(model, modulator, stored.values["layers"])


def _folder(folder_or_hub_id: str | Path, **options: Any) -> Path:
    """Local folder of an artefact's files; for a run folder its `modulator/`."""
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        inner = folder / "modulator"
        return inner if not (folder / CONFIG).is_file() and (inner / CONFIG).is_file() else folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(folder_or_hub_id), allow_patterns=list(FILES), **options))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(f"{folder_or_hub_id}: neither a folder nor an accessible hub repository ({reason})") from error


def _read_json(file: Path, right: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read ({first_line(error)}); name {right}") from error
