"""``reid study``: a grid of runs becomes a table beside the paper's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit import config, trust
from reidkit.cli import completion
from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.texts.printable import printable

if TYPE_CHECKING:
    from reidkit.studies.tables import StudyTable
    from reidkit.studies.workers import StudyAtWork


@click.command("study")
@click.argument("study", required=False, shell_complete=completion.studies)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...", shell_complete=completion.keys)
@click.option("--list", "list_studies", is_flag=True, help="List the shipped studies.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Study's folder; runs/study-NAME."
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Run folders; OUT/runs. Studies that share it train equal cells once.",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="One thread each, if several.",
)
@click.option("--only", metavar="PATTERN", help="Cells to run, by name: '*msml*/seed-0'; in any case.")
@click.option("--show", is_flag=True, help="Print the study's file, to make one of your own of it.")
@click.option(
    "--tables", "tables_only", is_flag=True, help="Write the tables of what is finished; train nothing."
)
@click.option("--worker", is_flag=True, hidden=True)
@json_option
@click.pass_context
def study_command(
    context: click.Context,
    study: str | None,
    overrides: tuple[str, ...],
    list_studies: bool,
    out: Path | None,
    runs: Path | None,
    processes: int,
    only: str | None,
    show: bool,
    tables_only: bool,
    worker: bool,
    as_json: bool,
) -> None:
    """Train and measure every cell of STUDY (a name from `reid study --list`, or a TOML file).

    \b
    reid study small-losses data.root=data/market1501 --processes 2
    reid study small-losses --show > mine.toml
    reid study mine.toml --out runs/mine --only '*msml*'

    KEY=VALUE change the configuration of every cell. Run the same command again to go on: finished cells are
    left alone, a run that was interrupted goes on from its checkpoint, cells that failed are tried again. The
    table is printed and written as table.md, table.csv and table.json. Exit code 1 where cells failed.
    """
    from reidkit.studies.study import shipped_studies, study_text

    if list_studies:
        print_studies(shipped_studies(), as_json)
        return
    if study is None:
        raise click.UsageError("name a study, or use --list")
    if show:
        click.echo(printable(study_text(study), keep="\n\t"), nl=False)
        return
    trust.allow_typed(*config.texts_of(overrides))
    from reidkit.studies.workers import StudyAtWork, WantedStudy
    from reidkit.training.kept_memory import keep_freed_memory

    keep_freed_memory()
    work = StudyAtWork(WantedStudy(study, overrides, out, runs, only))
    if worker:
        work.take_part()
    elif num_left := _carry_out(work, processes, tables_only, as_json):
        say(f"{num_left} of {len(work.tasks)} runs failed or are not done; run the command again to go on")
        context.exit(1)


def _carry_out(work: StudyAtWork, processes: int, tables_only: bool, as_json: bool) -> int:
    """Returns how many runs are not finished."""
    work.begin(again=not tables_only)
    num_runs, num_open = len(work.tasks), work.num_open
    say(f"{len(work.cells)} cells, {num_runs} runs to look at, {num_runs - num_open} of them finished")
    if not tables_only:
        work.carry_out(processes=processes)
    tables, paths = work.write_tables()
    print_tables(work.study.title, tables, as_json)
    say(f"wrote {', '.join(map(str, paths))}")
    return work.num_unfinished


def print_tables(title: str, tables: Sequence[StudyTable], as_json: bool) -> None:
    if as_json:
        print_json([table.as_dict() for table in tables])
        return
    for table in tables:
        header = table.header()
        full = title if len(tables) == 1 else f"{title}: {table.test}"
        print_table(header, table.lines(), title=full, right=header[len(table.axes) :])
        tell("\n".join(["", *table.notes, ""]), lines=True)


def print_studies(studies: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json(studies)
    else:
        print_table(["study", "what it shows"], studies.items())
        say("\nreid study NAME data.root=FOLDER --processes 2")
