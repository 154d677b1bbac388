"""``reid study``: a grid of runs becomes a table beside the paper's table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from reidkit import config, trust
from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.errors import ConfigError
from reidkit.printable import printable


@click.command("study")
@click.argument("study", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
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
    reid study small-losses data.root=data/Market-1501 --processes 2
    reid study small-losses --show > mine.toml
    reid study mine.toml --out runs/mine --only '*msml*'

    KEY=VALUE change the configuration of every cell. Run the same command again to go on: finished cells are
    left alone, a run that was interrupted goes on from its checkpoint, cells that failed are tried again. The
    table is printed and written as table.md, table.csv and table.json. Exit code 1 where cells failed.
    """
    from reidkit.studies import cells_of, load_study, shipped_studies, study_text

    if list_studies:
        _print_studies(shipped_studies(), as_json)
        return
    if study is None:
        raise click.UsageError("name a study, or use --list")
    if show:
        click.echo(printable(study_text(study), keep="\n\t"), nl=False)
        return
    trust.allow_typed(*config.texts_of(overrides))
    loaded = load_study(study)
    cells = cells_of(loaded, overrides)
    from reidkit.files import write_atomically
    from reidkit.study_runs import (
        MOST_ATTEMPTS,
        Folders,
        carry_out,
        check_data,
        forget_failures,
        state_of,
        tasks_of,
    )
    from reidkit.study_tables import tables_of, write_tables

    out = out or Path("runs") / f"study-{Path(study).stem}"
    folders = Folders(out, runs or out / "runs")
    folders.check()
    tasks = tasks_of(loaded, cells, only=only)
    if worker:
        carry_out(tasks, folders)
        return
    check_data(tasks, folders)
    write_atomically(out / "study.toml", study_text(study))
    if not tables_only:
        forget_failures(tasks, folders)
    todo = sum(state_of(task, folders) == "open" for task in tasks)
    say(f"{len(cells)} cells, {len(tasks)} runs to look at, {len(tasks) - todo} of them finished")
    if tables_only:
        todo = 0
    if processes > 1 and todo:
        words = ["study", study, *overrides, "--out", out, "--runs", folders.runs, "--worker"]
        words += ["--only", only] if only else []
        _run_workers([*map(str, words)], min(processes, todo), most_restarts=MOST_ATTEMPTS * todo)
    elif todo:
        carry_out(tasks, folders)
    tables = tables_of(loaded, cells, folders)
    paths = write_tables(loaded, tables, out)
    if as_json:
        print_json([table.as_dict() for table in tables])
    else:
        for table in tables:
            header = table.header()
            title = loaded.title if len(tables) == 1 else f"{loaded.title}: {table.test}"
            print_table(header, table.lines(), title=title, right=header[len(table.axes) :])
            tell("\n".join(["", *table.notes, ""]))
    say(f"wrote {', '.join(map(str, paths))}")
    unfinished = [task for task in tasks if state_of(task, folders) != "finished"]
    if unfinished:
        say(f"{len(unfinished)} of {len(tasks)} runs failed or are not done; run the command again to go on")
        context.exit(1)


def _run_workers(words: Sequence[str], num_workers: int, *, most_restarts: int = 0) -> None:
    """Processes that each take the next run. One that is killed leaves its run to others, and is replaced."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "reidkit", *words]
    workers = [subprocess.Popen(command, env=environment) for _ in range(num_workers)]
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.2)
            for place, worker in enumerate(workers):
                if (worker.poll() or 0) < 0 and most_restarts:  # by a signal: perhaps its memory ran out
                    workers[place] = subprocess.Popen(command, env=environment)
                    most_restarts -= 1
    except (KeyboardInterrupt, SystemExit) as stop:
        for worker in workers:
            if isinstance(stop, SystemExit):  # ctrl-C reached them too
                worker.terminate()
        for worker in workers:
            worker.wait()  # they save first
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    codes = [worker.returncode for worker in workers]
    if any(codes):
        say(f"{sum(map(bool, codes))} of {num_workers} worker processes ended early (exit codes {codes})")
    if all(code == 2 for code in codes):
        raise ConfigError("no worker process could start; what they said stands above")


def _exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as a shell reports it


def _print_studies(studies: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json(studies)
    else:
        print_table(["study", "what it shows"], studies.items())
        say("\nreid study NAME data.root=FOLDER --processes 2")
