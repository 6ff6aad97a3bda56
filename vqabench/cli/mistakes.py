"""Messages of usage errors, with what to write instead."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from typer.exceptions import TyperException

from vqabench.cli.completion import find_settings, split_names

OTHER_NAMES = {
    "--learning-rate": "--lr",
    "--wd": "--weight-decay",
    "--bs": "--batch-size",
    "--optim": "--optimizer",
    "--gpu": "--device",
    "--gpus": "--device",
    "--output": "--out",
    "--workers": "--jobs",
}
"""What other tools call options that exist here under another name."""


PLAIN_WORDS = {
    r"Got unexpected extra argument\(s\) \((.*)\)": r"unexpected argument '\1'",
    r"No such command ('.*?')[.?]*( Did)?": r"unknown command \1\2",
    r"(unknown command '.*?') Did": r"\1: did",
    r"^Option '(.*?)' requires an argument": r"\1: needs a value",
    r"^Option '(.*?)' does not take a value": r"\1: takes no value",
    r"Input should be a valid integer.*": "must be a whole number",
    r"Input should be a valid number.*": "must be a number",
    r"Input should be greater than or equal to (\S+)": r"must be at least \1",
}
"""Messages of Typer's parser -> ours."""
NEAR = 0.75
"""Likeness at which an option is suggested without reading the plugins' settings, which takes longer."""


def explain(error: TyperException, arguments: Sequence[str]) -> str:
    """Return the message of a usage error, with what to write instead if that can be found."""
    if hasattr(error, "possibilities"):  # Typer's error for an unknown option, which has no public name
        return _explain_option(error, arguments)
    message = re.sub(r"^Invalid value for '(.*?)': (Value error, )?", r"\1: ", error.format_message())
    for theirs, ours in PLAIN_WORDS.items():
        message = re.sub(theirs, ours, message)
    if ": must be " in message:
        message += f", not {_find_value(message.partition(':')[0], arguments)!r}"
    if message.startswith("Usage: "):  # a group without its command: the message is the group's help
        return message
    message = message[:1].lower() + message[1:]
    wrong = re.search(r"'([^']*)' is not one of ('.*')\.?$", message)
    near = difflib.get_close_matches(wrong[1], re.findall(r"'([^']*)'", wrong[2]), n=1) if wrong else []
    if near:
        return f"{message.rstrip('.')}; did you mean {near[0]!r}?"
    message, context = message.rstrip("."), getattr(error, "ctx", None)
    if context and message.startswith(("un", "missing")) and not message.endswith("?"):
        message += f": see {context.command_path} --help"
    return message


def _find_value(option: str, arguments: Sequence[str]) -> str:
    """Return the value that the line gives an option."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


def _explain_option(error: Any, arguments: Sequence[str]) -> str:
    command = error.ctx.command
    given = _as_written(str(error.option_name), arguments)
    wanted = given.replace("_", "-")
    wanted = OTHER_NAMES.get(wanted, wanted)
    options = [option for parameter in command.params for option in parameter.opts if len(option) > 2]
    near, settings = _find_nearest(wanted, options, NEAR), dict[str, str]()
    if not near:
        settings = _settings_as_options(arguments) if "--set" in options else {}
        near = wanted if wanted in settings else _find_nearest(wanted, [*options, *settings])
    if near in settings:
        hint = f"write {settings[near]}" if near == wanted else f"did you mean {settings[near]}?"
    elif near:
        hint = f"did you mean {near}?"
    elif takers := [name for name, inner in getattr(command, "commands", {}).items() if _takes(inner, wanted)]:
        hint = f"write it after the command, as in {error.ctx.command_path} {takers[0]} {wanted}"
    else:
        hint = f"see {error.ctx.command_path} --help"
    return f"unknown option {given!r}: {hint}"


def _takes(command: Any, option: str) -> bool:
    return any(option in parameter.opts for parameter in command.params)


def _find_nearest(wanted: str, options: Iterable[str], likeness: float = 0.65) -> str:
    """Return the option that is most like the one wanted, or "". The dashes, which all have, do not count."""
    names = [option.strip("-") for option in options]
    near = difflib.get_close_matches(wanted.strip("-"), names, n=1, cutoff=likeness)
    return f"--{near[0]}" if near else ""


def _as_written(option: str, arguments: Sequence[str]) -> str:
    """Return the long option that was written with one dash, as in `-lr`, of which Typer names the first letter."""
    if re.fullmatch(r"-\w", option):
        written = [word.partition("=")[0] for word in arguments if re.match(rf"{option}[\w-]", word)]
        return f"-{written[0]}" if written else option
    return option


def _settings_as_options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the settings of the recipe, and of the backbones and losses on the line, as if they were options."""
    keys = find_settings(name for word in arguments for name in split_names(word.rpartition("=")[2]))
    as_options: dict[str, str] = {}
    for key in keys:
        as_options.setdefault(f"--{key.rpartition('.')[2].replace('_', '-')}", f"--set {key}=VALUE")
    return as_options
