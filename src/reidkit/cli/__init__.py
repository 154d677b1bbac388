"""The ``reid`` command: parse, call, print. A command's file is imported when that command is run.

Exit codes: 0 done, 2 a mistake of the caller or a fault of the machine (one line says which), 3 a bug of
reidkit's, 130 stopped by ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path

import click

from reidkit import __version__, trust
from reidkit.cli.endings import ending
from reidkit.errors import did_you_mean, shown
from reidkit.texts.addresses import without_passwords
from reidkit.texts.printable import printable

_COMMANDS = {
    "demo": ("demo", "From nothing to a result: draw people, train, evaluate, search."),
    "check": ("check", "Say what a data set holds and what is wrong with it."),
    "split": ("split", "Cut your own images into train, val, query and gallery."),
    "train": ("train", "Train a recipe; run again to go on where it stopped."),
    "evaluate": ("evaluate", "Score a run, or a file of features, and write a report."),
    "compare": ("compare", "Say whether one run is better than another, and how sure that is."),
    "study": ("study", "Train a grid of runs; a table beside the papers' tables."),
    "runs": ("runs", "List runs with their scores."),
    "encoders": ("encoders", "List ready-made networks, and how to have them."),
    "import-weights": ("import_weights", "Make an encoder of another toolkit's weights."),
    "export": ("export", "Write an encoder for ONNX Runtime, OpenVINO or TorchScript."),
    "encode": ("encode", "Embed images into a file of features."),
    "index": ("index", "Embed images into a gallery."),
    "track": ("track", "Follow people through videos, into a gallery."),
    "search": ("search", "Find who looks most like an image in a gallery."),
    "cluster": ("cluster", "Find out who is who among a gallery's pictures; propose people."),
    "timeline": ("timeline", "Say where and when a person was, and how long ways take."),
    "review": ("review", "Say who is who in a gallery: accept, reject, merge, split."),
    "gallery": ("gallery", "Say what a gallery holds, check it, mend it."),
    "serve": ("serve", "Serve galleries to a team: a page and an API."),
    "recipes": ("recipes", "List, show and copy the shipped recipes."),
    "config": ("config", "Print a configuration with all its values."),
    "list": ("components", "List what is available: losses, models, datasets, galleries."),
}


class LazyGroup(click.Group):
    """A group whose commands live in files of this folder, named in ``_COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"reidkit.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(
                f"no command {shown(args[0])};{did_you_mean(args[0], _COMMANDS)} `reid --help` lists them"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reid")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1), help="Largest width x height of an image (64 million)."
)
@click.option(
    "--allow-code",
    multiple=True,
    metavar="MODULE",
    help="Let files name your own code in MODULE, as my_package.models; may be repeated.",
)
@click.pass_context
def cli(ctx: click.Context, debug: bool, max_pixels: int | None, allow_code: tuple[str, ...]) -> None:
    """Person re-identification: train, measure, search.

    \b
    New here?            reid demo
    A folder of crops?   reid check folder photos/
    """
    if max_pixels is not None:
        os.environ["REIDKIT_MAX_PIXELS"] = str(max_pixels)  # reaches the processes that read images, too
    trust.allow_code_everywhere(*allow_code)
    from reidkit.cli.output import log_shown

    ctx.with_resource(log_shown())


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name need not be text in the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    _keep_out_current_folder()
    words = sys.argv[1:]
    anywhere, others = allowed_anywhere(words)
    if "--debug" not in anywhere and not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries, meant for who calls them, which is us
    try:
        code = cli.main([*anywhere, *others], standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped; run the same command again to go on", err=True)
        sys.exit(130)
    except Exception as error:
        line, code = ending(error, words)
        if "--debug" in anywhere:
            trace = without_passwords("".join(traceback.format_exception(error)))
            click.echo(printable(trace, keep="\n\t"), err=True)
        click.echo(line, err=True)
        sys.exit(code)
    sys.exit(code if isinstance(code, int) else 0)


def _keep_out_current_folder() -> None:
    """Let Pythons that this one starts not import what lies in the current folder, unless this one does.

    It may be a folder that was downloaded, with a ``torch.py`` in it.
    """
    if not {"", str(Path.cwd())} & set(sys.path):
        os.environ["PYTHONSAFEPATH"] = "1"


def allowed_anywhere(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options of ``reid`` itself that may stand behind the command as well, and all other words."""
    anywhere, others = [], []
    rest = iter(words)
    for word in rest:
        if word == "--":
            others += [word, *rest]
        elif word == "--debug" or word.startswith("--allow-code="):
            anywhere.append(word)
        elif word == "--allow-code":
            anywhere += [word, *islice(rest, 1)]
        else:
            others.append(word)
    return anywhere, others
