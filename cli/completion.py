"""Completion for bash, zsh and fish: a script that knows every word, made of what the help pages and the checks know.

    source <(python train.py --completion bash)             # in ~/.bashrc: the same line
    python train.py --completion zsh > ~/.zfunc/_modulant   # a folder of $fpath, before compinit
    python train.py --completion fish > ~/.config/fish/completions/modulant.fish

The words are written into the script, so that a press of Tab starts no Python. In bash and zsh ``python train.py …``
and ``python probe.py …`` are completed too, unless Python has a completion already, which then stays.
"""

from collections.abc import Iterator, Mapping, Sequence

from cli.command import SUBCOMMANDS
from cli.configuration.files import CONFIGS
from cli.configuration.schema import Schema, load
from cli.help import keys_of

SHELLS = ("bash", "zsh", "fish")
_OWN = (
    "--config",
    "--output",
    "--resume",
    "--prompt",
    "--dry-run",
    "--dry-run=json",
    "--print_config",
    "--debug",
    "--help",
)
_FILES = ("--output", "--resume", "--data.nltk_data", "--model.backbone", "--data.prompts")


def script(shell: str, probes: Sequence[str]) -> str:
    """The script for a shell.

    Args:
        shell: one of `SHELLS`.
        probes: the subcommands of probe.py.

    Raises:
        ValueError: another shell.
    """
    if shell not in SHELLS:
        raise ValueError(f"--completion: {shell!r} is not a known shell; it must be one of {', '.join(SHELLS)}")
    if shell == "fish":
        return _fish(probes)
    values = "\n".join(f"      {key}) words='{' '.join(words)}' ;;" for key, words in sorted(_values().items()))
    text = _BASH.format(
        subcommands=" ".join(SUBCOMMANDS),
        probes=" ".join(probes),
        configs=" ".join(_configs()),
        options=" ".join([*_OWN, *_options()]),
        values=values,
        files="|".join(_FILES),
    )
    return f"autoload -U +X bashcompinit && bashcompinit\n{text}" if shell == "zsh" else text


def _configs() -> list[str]:
    return sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def _options() -> list[str]:
    """Every key that a shipped configuration has."""
    keys = {name.split()[0] for path in CONFIGS.rglob("*.yaml") for name, _ in keys_of(path)}
    return sorted(keys - {"--trainer.logger", "--trainer.callbacks"})


def _values() -> Mapping[str, list[str]]:
    """Option → the words that it may be, where these are few."""
    schema = load()
    places = {key: [own] for key, own in schema["properties"].items()}
    model = schema["$defs"]["modulators.ModulatedT5"]["properties"]
    places |= {f"model.{key}": [model[key]] for key in ("modulator", "geometry")}
    found: dict[str, list[str]] = {}
    for place, options in places.items():
        for option in (inner for own in options for inner in own.get("anyOf", [own])):
            pointer = option.get("properties", {}).get("init_args", option).get("$ref", "")
            arguments = schema["$defs"].get(pointer.rpartition("/")[2], option)
            for name, own in arguments.get("properties", {}).items():
                if words := list(dict.fromkeys(_words(own))):
                    found.setdefault(f"--{place}.{name}", words)
    return found


def _words(schema: Schema) -> Iterator[str]:
    if schema.get("type") == "boolean":
        yield from ("true", "false")
    yield from (str(word) for word in schema.get("enum", ()) if isinstance(word, str))
    for option in schema.get("anyOf", ()):
        yield from _words(option)


def _fish(probes: Sequence[str]) -> str:
    lines = ["# modulant: completion for fish"]
    for program, subcommands in (("modulant", SUBCOMMANDS), ("modulant-probe", probes)):
        lines.append(f"complete -c {program} -n __fish_use_subcommand -f -a '{' '.join(subcommands)}'")
    lines += [
        f"complete -c modulant -l {option.removeprefix('--')} -r -F" if option in _FILES else
        f"complete -c modulant -l {option.removeprefix('--')}" + (
            f" -x -a '{' '.join(words)}'" if (words := _values().get(option)) else ""
        )
        for option in [*(o for o in _OWN if "=" not in o and o != "--config"), *_options()]
    ]  # fmt: skip
    lines.append(f"complete -c modulant -l config -s c -r -F -a '{' '.join(_configs())}'")
    return "\n".join(lines)


_BASH = """\
# modulant: completion for bash (and zsh, by bashcompinit)
_modulant() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" first=1 key words='' i
  local probe=''
  case "${{COMP_WORDS[0]##*/}}" in
    python*) first=2; case "${{COMP_WORDS[1]##*/}}" in probe.py) probe=1 ;; esac ;;
    *probe*) probe=1 ;;
  esac
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq "$first" ]; then
    words='{subcommands} --help --completion'
    if [ -n "$probe" ]; then words='{probes} --help'; fi
    COMPREPLY=($(compgen -W "$words" -- "$word")); return
  fi
  # --key=value comes as three words in bash
  key="$before"
  if [ "$word" = "=" ]; then word=''; elif [ "$before" = "=" ]; then key="${{COMP_WORDS[COMP_CWORD-2]}}"; fi
  case "$key" in
    --config|-c)
      COMPREPLY=($(compgen -W '{configs}' -- "$word") $(compgen -f -X '!*.y*ml' -- "$word") $(compgen -d -- "$word"))
      return ;;
    --completion) words='bash zsh fish' ;;
    {files}) COMPREPLY=($(compgen -f -- "$word")); return ;;
    *)
    if [ -z "$probe" ]; then
      case "$key" in
{values}
      esac
    fi ;;
  esac
  if [ -z "$words" ]; then
    if [ -n "$probe" ]; then COMPREPLY=($(compgen -f -- "$word")); return; fi
    words='{options}'
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
_modulant_python() {{
  case "${{COMP_WORDS[1]##*/}}" in
    train.py|probe.py) if [ "$COMP_CWORD" -gt 1 ]; then _modulant; return; fi ;;
  esac
  COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -F _modulant modulant modulant-probe
for _modulant_name in python python3; do
  # what was there already stays; with nothing there, files are completed as before
  complete -p $_modulant_name >/dev/null 2>&1 || complete -o filenames -F _modulant_python $_modulant_name
done
unset _modulant_name
"""
