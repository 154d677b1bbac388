"""``reid split``: one's own images cut into train, val, query and gallery, as a table."""

from __future__ import annotations

from pathlib import Path

import click

from reidkit.cli.options import column_option, given, named_columns, pattern_option
from reidkit.cli.output import json_option, print_json, print_table, say, say_next
from reidkit.texts.printable import counted


@click.command("split")
@click.argument("source", metavar="ROOT_OR_TABLE", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Table to write, .csv.")
@click.option(
    "--data",
    type=click.Choice(["folder", "table"]),
    help="What ROOT_OR_TABLE is; a folder of images, or a table where it is a file.",
)
@pattern_option
@column_option
@click.option(
    "--parts",
    type=click.Choice(["auto", "named", "none"]),
    help='Whether folders called "train", "test", ... are parts; "none" takes them for identities.',
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all draws.")
@click.option(
    "--test-identities",
    type=float,
    default=0.5,
    show_default=True,
    help="Share of the identities to test on, or their number from 1 on.",
)
@click.option(
    "--val-identities",
    type=int,
    default=0,
    show_default=True,
    help="Number of identities to choose the best epoch by.",
)
@json_option
def split_command(
    source: Path,
    out: Path,
    data: str | None,
    pattern: str | None,
    parts: str | None,
    columns: tuple[str, ...],
    seed: int,
    test_identities: float,
    val_identities: int,
    as_json: bool,
) -> None:
    """Cut the images of ROOT_OR_TABLE into parts to train and to test on; no identity is in two of them.

    \b
    reid split photos/ --out people.csv --pattern "{identity}_c{camera}_{frame}.jpg"
    reid split list.csv --out people.csv --column path=file --column camera=cam_name
    reid check table people.csv
    reid train small-cpu data.name=table data.root=people.csv --out runs/people

    The first image of each test person under each camera queries; without cameras, one image of each.
    """
    from reidkit.checks.labels import example_reading
    from reidkit.datasets._splits import split_images

    table = split_images(
        source,
        out,
        layout=data,
        options=given(pattern=pattern, parts=parts, column=named_columns(columns)),
        test_identities=test_identities,
        val_identities=val_identities,
        seed=seed,
    )
    if as_json:
        print_json({"table": str(out), "seed": seed, "splits": table.counts()})
    else:
        say(f"labels as read, for example {example_reading(table.data.train)}")
        print_counts(table.counts())
    if len(table.parts_before) > 1:
        say(f"the parts of {source} ({', '.join(table.parts_before)}) were put together and cut anew")
    if table.left_out:
        files = counted(len(table.left_out), "file")
        say(f"{files} left out, {table.left_out[0]} first; `reid check` says why")
    say(f"wrote {out}")
    say_next("check", "table", out)


def print_counts(counts: dict[str, dict[str, int]]) -> None:
    rows = [(name, *(f"{count:,}" for count in part.values())) for name, part in counts.items()]
    print_table(("split", "images", "identities"), rows, right=("images", "identities"))
