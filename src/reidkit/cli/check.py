"""``reid check``: what a data set holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.checks.check import DatasetCheck
    from reidkit.checks.findings import Finding
    from reidkit.images.speed import Speed

_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command("check")
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--make", is_flag=True, help="With `synthetic`: draw the data set into ROOT first.")
@click.option("--speed", is_flag=True, help="Measure how fast images are read: decoded, and cached.")
@json_option
@click.pass_context
def check_command(
    ctx: click.Context,
    name: str,
    root: Path,
    options: tuple[str, ...],
    make: bool,
    speed: bool,
    as_json: bool,
) -> None:
    """Count and inspect the data set in ROOT, laid out as NAME (see `reid list datasets`).

    \b
    reid check market1501 data/
    reid check folder photos/ pattern="{identity}_c{camera}_{frame}.jpg"
    reid check table people.csv
    reid check synthetic people/ --make num_train_identities=100 seed=3

    Exit code 1 says that errors were found.
    """
    from reidkit.checks.check import check_dataset
    from reidkit.config import parse_options
    from reidkit.datasets import load_dataset
    from reidkit.errors import ConfigError
    from reidkit.images.speed import reading_speeds
    from reidkit.progress import progress

    given = parse_options(options)
    if make:
        from reidkit.datasets.synthetic.dataset import make_synthetic_from

        if name != "synthetic":
            raise ConfigError(f"--make draws the data set 'synthetic' only, not {name!r}")
        with progress("images drawn") as shown:
            make_synthetic_from(root, given, progress=shown)
        given = {}
    data = load_dataset(name, root, **given)
    with progress("images read") as shown:
        result = check_dataset(data, progress=shown)
    speeds = reading_speeds(data) if speed else []
    if as_json:
        print_as_json(result, speeds)
    else:
        print_check(result)
        print_speeds(speeds)
    ctx.exit(1 if result.has_errors else 0)


def print_as_json(result: DatasetCheck, speeds: Sequence[Speed]) -> None:
    rates = {speed.name: speed.images_per_second for speed in speeds if not speed.problem}
    print_json(result.as_dict() | rates)


def print_speeds(speeds: Sequence[Speed]) -> None:
    for speed in speeds:
        if speed.problem:
            say(speed.problem)
        for num_workers, rate in speed.images_per_second.items():
            tell(f"{speed.what}, {counted(num_workers, 'worker')}: {rate:,.0f} images/s")


def print_check(result: DatasetCheck) -> None:
    """Counts, how labels were read, some samples, and what was found."""
    header, *rows = result.rows()
    print_table(header, rows, title=f"{result.name} in {result.root}", right=header[1:])
    if result.num_valid_queries is not None:
        tell(f"{result.num_valid_queries:,} of {result.num_queries:,} queries have a match")
    if result.reading:
        tell("\nread as")
    for sentence in result.reading:
        tell(f"  {sentence}")
    if result.samples:
        columns = list(dict.fromkeys(name for sample in result.samples for name in sample))
        tell("\nfor example")
        print_table(columns, [[sample.get(name, "") for name in columns] for sample in result.samples])
    for finding in result.findings:
        print_finding(finding)
    if not result.findings:
        say("\nnothing to complain about")


def print_finding(finding: Finding) -> None:
    tell()
    count = f": {finding.count:,}" if finding.count > 1 else ""
    click.secho(finding.severity, fg=_STYLES[finding.severity], bold=True, nl=False)
    tell(f"  {finding.title}{count}")
    for example in finding.examples:
        tell(f"    {example}")
    if finding.examples and finding.count > len(finding.examples):
        tell(f"    and {finding.count - len(finding.examples):,} more")
    tell(f"  {finding.advice}")
