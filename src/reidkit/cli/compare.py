"""``reid compare``: two runs on the same data, side by side."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit import config
from reidkit.cli import completion
from reidkit.cli.options import EncoderPath, refuse
from reidkit.cli.output import json_option, print_json, print_table, say, tell

if TYPE_CHECKING:
    from reidkit.reports.run_comparison import RunComparison


@click.command("compare")
@click.argument("first", type=EncoderPath())
@click.argument("second", type=EncoderPath())
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data",
    shell_complete=completion.layouts,
    help="Layout of the data set; the one the first run was trained on if left out.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option(
    "--split", type=click.IntRange(min=0), help="Of a set with several train/test splits: its number."
)
@click.option("--protocol", help="Of two files of features: market1501 if left out, or another.")
@click.option("--camera-filter", help="same_identity, other_cameras or none, in place of the usual one.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results.  [runs/FIRST-vs-SECOND]"
)
@json_option
def compare_command(
    first: Path,
    second: Path,
    options: tuple[str, ...],
    data: str | None,
    root: Path | None,
    split: int | None,
    protocol: str | None,
    camera_filter: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say whether SECOND is better than FIRST on the same images, and how sure that is.

    Each is a run folder, a network's file, or a file of features (.npz, .parquet, a folder of .npy).

    \b
    reid compare runs/trihard runs/msml
    reid compare runs/mine model.onnx --data viper --root data/
    reid compare theirs.npz ours.npz

    Differences are SECOND less FIRST, query by query; their intervals are those that other people of the
    same kind would give, each with all of their queries. They say nothing of another training with another
    seed.
    """
    from reidkit.progress import progress
    from reidkit.reports.chosen_data import Wanted
    from reidkit.reports.run_comparison import compare_runs, networks_among

    networks = networks_among([first, second])
    if networks:
        refuse({"--protocol": protocol}, f"the protocol of {networks[0]} is that of the data it is tested on")
    else:
        of_images = {"--data": data, "--root": root, "--split": split is not None, "KEY=VALUE": options}
        refuse(of_images, "both files hold features; leave it out")
    wanted = Wanted(data, root, config.parse_options(options), None if split is None else str(split))
    with progress("images embedded") if networks else nullcontext() as shown:
        comparison = compare_runs(
            first,
            second,
            wanted,
            protocol=protocol or "market1501",
            camera_filter=camera_filter,
            out=out,
            progress=shown,
        )
    if comparison.left_out:
        say(comparison.left_out)
    say(f"wrote {comparison.results}")
    say(f"wrote {comparison.page}")
    print_json(comparison.as_dict()) if as_json else print_comparison(comparison)


def print_comparison(comparison: RunComparison) -> None:
    """Scores and distances of both, their differences, and the verdict."""
    values, first, second = comparison.as_dict(), comparison.first, comparison.second
    rows = []
    for score in list(values["paired"])[:2]:
        one, other = (100 * values[side][score] for side in ("first", "second"))
        row = [score, f"{one:.1f}", f"{other:.1f}", f"{other - one:+.1f}", "", ""]
        if found := values["paired"][score]:
            low, high = (100 * end for end in found["interval"])
            row[4:] = [f"{low:+.1f} to {high:+.1f}", f"{found['p_value']:.3g}"]
        rows.append(row)
    for label, key, scale, form in (
        ("overlap of distances, %", "overlap", 100, ".1f"),
        ("hardest-pair gap", "gap", 1, "+.3f"),
    ):
        one, other = (scale * values[side]["distances"][key] for side in ("first", "second"))
        rows.append(
            [label, f"{one:{form}}", f"{other:{form}}", f"{other - one:+{form.removeprefix('+')}}", "", ""]
        )
    columns = ["", first.name, second.name, "difference", "95 % interval", "p"]
    print_table(columns, rows, title=first.evaluation.protocol, right=columns[1:])
    tell(comparison.verdict)
