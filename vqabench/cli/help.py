"""The layout of help: plain text, options in groups, examples at the end."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

WIDEST = 100
"""Columns of help on a wider terminal."""
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": WIDEST}
PLACES = "Where things are"
"""Heading of the options that several commands share: the last ones in help."""


def examples(*commands: str) -> str:
    """Return the examples that end a command's help."""
    return "\n".join(f"vqabench {command}" for command in commands)


class _WithExamples:
    """Writes the examples under their own heading, one a line and never wrapped."""

    epilog: str | None

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the section of examples."""
        with formatter.section("Examples"):
            for command in (self.epilog or "").splitlines():
                formatter.write(f"  {command}\n")


class Group(_WithExamples, TyperGroup):
    """A group of commands."""


class Command(_WithExamples, TyperCommand):
    """A command whose help puts each option under the heading of its `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section of arguments, then one for each group of options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            heading = getattr(parameter, "rich_help_panel", None) or "Options"
            if parameter.param_type_name == "argument":
                heading, record = "Arguments", (record[0].partition(" <")[0], record[1])
            sections.setdefault(heading, []).append(record)
        for heading in sorted(sections, key=lambda name: (name == PLACES, name == "Options")):
            with formatter.section(heading):
                formatter.write_dl(sections[heading])
