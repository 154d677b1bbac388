"""``reid split``: one's own images cut into train, val, query and gallery, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reidkit.cli.images import pattern_option
from reidkit.cli.output import json_option, print_json, print_table, say
from reidkit.errors import ConfigError


@click.command("split")
@click.argument("source", metavar="ROOT_OR_TABLE", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Table to write, .csv.")
@click.option(
    "--data",
    type=click.Choice(["folder", "table"]),
    help="What ROOT_OR_TABLE is; a folder of images, or a table where it is a file.",
)
@pattern_option
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
    seed: int,
    test_identities: float,
    val_identities: int,
    as_json: bool,
) -> None:
    """Cut the images of ROOT_OR_TABLE into parts to train and to test on; no identity is in two of them.

    \b
    reid split photos/ --out people.csv --pattern "{identity}_c{camera}_{frame}.jpg"
    reid check table people.csv
    reid train small-cpu data.name=table data.root=people.csv --out runs/people

    The first image of each test person under each camera queries; without cameras, one image of each.
    """
    from reidkit.datasets import load_dataset
    from reidkit.splits import check_table_path, make_splits, write_table

    check_table_path(out)
    kind = data or ("table" if source.is_file() else "folder")
    if kind == "table" and (pattern is not None or parts is not None):
        raise ConfigError("--pattern and --parts read folders; a table has labels and parts in columns")
    given = {"pattern": pattern, "parts": parts}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    loaded = load_dataset(kind, source, **options)
    cut = make_splits(loaded, test_identities=test_identities, val_identities=val_identities, seed=seed)
    write_table(cut, out)
    counts: dict[str, Any] = {
        name: {"images": len(samples), "identities": len({sample.identity for sample in samples})}
        for name, samples in cut.splits.items()
    }
    if as_json:
        print_json({"table": str(out), "seed": seed, "splits": counts})
    else:
        rows = [(name, *(f"{count:,}" for count in part.values())) for name, part in counts.items()]
        print_table(("split", "images", "identities"), rows, right=("images", "identities"))
    if len(loaded.splits) > 1:
        say(f"the parts of {source} ({', '.join(loaded.splits)}) were put together and cut anew")
    if loaded.skipped:
        say(f"{len(loaded.skipped):,} files left out, {loaded.skipped[0]} first; `reid check` says why")
    say(f"wrote {out}; next: reid check table {out}")
