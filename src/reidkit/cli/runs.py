"""``reid runs``: the runs below a folder with their scores."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from reidkit.cli.output import json_option, print_json, print_left_out, print_table, say
from reidkit.training.runs import SORT_KEYS, Measured, RunSummary, list_runs

COLUMNS = (
    "run",
    "data",
    "model",
    "losses",
    "epochs",
    "val mAP",
    "tested on",
    "mAP",
    "rank-1",
    "changed (UTC)",
)
_NUMBERS = ("epochs", "val mAP", "mAP", "rank-1")


@click.command("runs")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--sort", default="name", show_default=True, type=click.Choice(SORT_KEYS), help="Column.")
@json_option
def runs_command(folder: Path, sort: str, as_json: bool) -> None:
    """List the runs below FOLDER (runs/ if left out) with what they are and how they score.

    \b
    reid runs
    reid runs experiments/ --sort mAP

    val mAP is of held-out training identities; mAP and rank-1 are of what was tested on by `reid evaluate`, a
    line for each evaluation that lies below FOLDER, in folders of their own. In percent.
    """
    runs, problems = list_runs(folder, sort=sort)
    print_left_out(problems)
    print_runs(runs, as_json)
    if not runs and not as_json:
        say(f"no runs below {folder}; `reid train RECIPE --out {shlex.quote(str(folder))}/NAME` makes one")


def print_runs(runs: Sequence[RunSummary], as_json: bool) -> None:
    if as_json:
        print_json([run.as_dict() for run in runs])
    elif runs:
        rows = [_row(run, tested) for run in runs for tested in run.evaluations or (None,)]
        print_table(COLUMNS, rows, right=_NUMBERS, prose=("losses", "tested on"))


def _row(run: RunSummary, tested: Measured | None) -> list[str]:
    scores = (
        ["", "", ""] if tested is None else [tested.tested_on, _percent(tested.mAP), _percent(tested.rank_1)]
    )
    epochs = f"{run.epochs_done}/{run.epochs}"
    changed = run.changed.strftime("%Y-%m-%d %H:%M")
    return [
        run.name,
        run.data,
        run.model,
        " + ".join(name.removesuffix("Loss") for name in run.losses),
        epochs,
        _percent(run.val_mAP),
        *scores,
        changed,
    ]


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.1f}"
