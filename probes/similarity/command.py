"""Human judgement: Spearman's ρ between people's ratings of word pairs and an encoder, before and after a modulator.

A lift by WordNet's own similarity may be WordNet's alone. Ratings by people are the check that WordNet did not write.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.alignment.populations import add_population_arguments, describe, load_data, split_for
from probes.options import add_model, at_least
from probes.pages import folder_name, write_json, write_text

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION = """\
How closely an encoder follows people's ratings of word pairs: Spearman's correlation with its 95% interval (bootstrap
over pairs), of the original encoder and, for a run, of the modulated one; again over pairs no sense of which was
trained on. The score of a pair is the largest cosine over the senses of its words in WordNet, each read by its
definition."""

EXAMPLES = """\
Without --pairs: SimLex-999 and WordSim-353, where gensim is installed (pip install 'modulant[similarity]'). A file of
your own has three columns (word, word, rating) separated by tabs, commas or spaces, and comments after #.

examples:
  python probe.py similarity runs/lerp/version_0
  python probe.py similarity mini --pairs simverb.tsv --output runs/probes/simverb
  python probe.py similarity runs/lora/version_0 --pairs simlex999.txt --pairs mine.csv --senses 1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("--pairs", action="append", type=Path, metavar="FILE", help="rated pairs of words; as often as there are files")
    add(
        "--senses",
        type=at_least(0),
        default=6,
        metavar="N",
        help="senses of a word, at most; 0: all (default: %(default)s)",
    )
    add("--replicates", type=at_least(2), default=1000, help="of the bootstrap (default: %(default)s)")
    add("--seed", type=at_least(0), default=42, help="of the bootstrap (default: %(default)s)")
    add_population_arguments(parser)
    add("--output", type=Path, metavar="DIR", help="default: runs/probes/similarity_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, report.md, report.html and similarity.png, print the page.

    Raises:
        ValueError: no pairs, no such model, or the disk refuses a file.
    """
    found = measure(args)
    from modulant.reports.drawing.plotting import save
    from probes.similarity import page

    folder = args.output or Path("runs/probes") / f"similarity_{folder_name(args.model)}"
    figure = page.figure(found)
    text = page.markdown(found, "similarity.png" if figure else None)
    write_json(folder / "report.json", found)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", page.html(found))
    if figure is not None:
        save(figure, folder / "similarity.png")
    print(text)
    print(f"written: {folder}/report.json, report.md, report.html{', similarity.png' if figure else ''}")
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that `report.json` holds. Word pairs are read and looked up before any model is loaded.

    Raises:
        ValueError: no pairs that can be used, or no such model, tokenizer or WordNet.
    """
    from modulant.corpus.word_pairs import gensim_word_pairs, read_sense_pairs
    from modulant.lexicon import Lexicon

    paths = args.pairs or gensim_word_pairs()
    with _as_argument():
        split = split_for(args.model, args.population, args.nltk_data)
        files = read_sense_pairs(paths, Lexicon.load(split.nltk_data), args.senses)

        from modulators.similarity import word_similarity
        from probes.alignment.encoders import open_encoder, represent

        encoder = open_encoder(args.model, args.prefix)

        def embedding(cloud: str) -> Callable[[list[str]], "Tensor"]:
            return lambda texts: represent(encoder, encoder.tokens(texts), cloud)

        after, trained, population = None, None, None
        before = embedding("encoder" if encoder.modulation is None else "original")
        if encoder.modulation is not None:
            after = embedding("modulated")
            data = load_data(split)
            corpus = data.corpus
            trained, population = corpus.entries.synset[corpus.trained].tolist(), describe(split, data)
    figures = word_similarity(files, before, after, trained, args.replicates, args.seed)
    return {
        "model": args.model,
        "architecture": encoder.config.model_type,
        "prefix": encoder.form.prefix,
        "senses": args.senses,
        "replicates": args.replicates,
        "seed": args.seed,
        "population": population,
        "files": {
            file.name: {
                "path": str(path),
                "pairs": file.total,
                "measured": len(file),
                "outside_wordnet": file.outside,
                "sense_in_common": int(file.shared.sum()),
            }
            for path, file in zip(paths, files, strict=True)
        },
        "figures": figures,
    }


@contextmanager
def _as_argument() -> Iterator[None]:
    """Errors of `open_encoder`, which other probes give their model by an option."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("--model: ", "")) from error
