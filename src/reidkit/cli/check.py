"""``reid check``: what a data set holds, and what is wrong with it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli import completion
from reidkit.cli.options import refuse
from reidkit.cli.output import json_option, print_json, print_table, say, say_next, tell
from reidkit.errors import ConfigError, shown
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.checks.check import DatasetCheck
    from reidkit.checks.findings import Finding
    from reidkit.images.speed import Speed

_STYLES = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command("check")
@click.argument("name", shell_complete=completion.layouts)
@click.argument("root", required=False)
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--make", is_flag=True, help="With `synthetic`: draw the data set into ROOT first.")
@click.option("--speed", is_flag=True, help="Measure how fast images are read: decoded, and cached.")
@click.option("--yes", is_flag=True, help="Of a path alone: check by the proposed reading without asking.")
@click.option("--boxes", type=click.Path(path_type=Path), help="With `video`: the boxes in it.")
@json_option
@click.pass_context
def check_command(
    ctx: click.Context,
    name: str,
    root: str | None,
    options: tuple[str, ...],
    make: bool,
    speed: bool,
    yes: bool,
    boxes: Path | None,
    as_json: bool,
) -> None:
    """Count and inspect the data set in ROOT, laid out as NAME (see `reid list datasets`).

    A path alone is looked at first: a reading of its names is proposed, shown on five samples, and asked for.

    \b
    reid check photos/
    reid check market1501 data/
    reid check folder photos/ pattern="{identity}_c{camera}_{frame}.jpg"
    reid check table people.csv
    reid check synthetic people/ --make num_train_identities=100 seed=3
    reid check video door.mp4 --boxes door.txt

    Exit code 1 says that errors were found.
    """
    from reidkit.checks.check import check_dataset
    from reidkit.config import parse_options
    from reidkit.datasets import load_dataset
    from reidkit.images.speed import reading_speeds
    from reidkit.progress import progress

    if name == "video" and root is not None:
        ctx.exit(check_a_video(root, boxes, parse_options(options), as_json=as_json))
    words = words_of([name, *filter(None, [root]), *options], boxes=boxes, yes=yes, as_json=as_json)
    if not words:
        return
    name, place = words[:2]
    given = parse_options(words[2:])
    if make:
        draw(name, place, given)
        given = {}
    data = load_dataset(name, place, **given)
    with progress("images read") as read:
        result = check_dataset(data, progress=read)
    speeds = reading_speeds(data) if speed else []
    if as_json:
        print_as_json(result, speeds)
    else:
        print_all(result, speeds, words)
    ctx.exit(1 if result.has_errors else 0)


def check_a_video(source: str, boxes: Path | None, given: Mapping[str, Any], *, as_json: bool) -> int:
    """Check a video, and the boxes in it; the exit code."""
    from reidkit.progress import progress
    from reidkit.video.boxes import given_options
    from reidkit.video.check import COLUMNS, check_video

    with progress("frames read") as read:
        result = check_video(source, boxes, options=given_options(given), progress=read)
    if as_json:
        print_json(result.as_dict())
    else:
        print_table(COLUMNS, [result.row()], right=COLUMNS[1:])
        print_readings(result.reading)
        print_findings(result.findings)
    return 1 if result.has_errors else 0


def draw(name: str, place: str, options: Mapping[str, Any]) -> None:
    """Make the synthetic data set with these options."""
    from reidkit.datasets.synthetic.dataset import make_synthetic_from
    from reidkit.progress import progress

    if name != "synthetic":
        raise ConfigError(f"--make draws the data set 'synthetic' only, not {name!r}")
    with progress("images drawn") as drawn:
        make_synthetic_from(Path(place), options, progress=drawn)


def words_of(typed: list[str], *, boxes: Path | None, yes: bool, as_json: bool) -> list[str]:
    """The layout, the root and the options that are meant; none where a proposal was not accepted."""
    from reidkit.checks.proposal import layout_of, names_a_place, propose
    from reidkit.datasets.folder import NoIdentities

    refuse({"--boxes": boxes}, "goes with `reid check video VIDEO`")
    if not names_a_place(typed):
        if len(typed) == 1:
            raise ConfigError(
                f"{shown(typed[0])} is no folder or table here; give one, or a layout and its ROOT"
            )
        return typed
    if typed[1:]:
        return [layout_of(typed[0]), *typed]
    try:
        proposal = propose(typed[0])
    except NoIdentities:
        if yes or as_json:  # there is nothing that could be checked
            raise
        print_nameless(typed[0])
        return []
    if not as_json:
        say(f"proposed: {proposal.reading}")
        print_samples(proposal.samples)
    return proposal.words if yes or accepted(proposal.words, ask=not as_json) else []


def print_nameless(place: str) -> None:
    """What to do with photos whose names say nobody."""
    say(
        f"{place}: the names do not say who is in the photos; to search them nobody needs a name, to learn "
        "from them each person needs a folder, or a pattern has to say where the names are: "
        f"reid check folder {shlex.quote(place)} pattern=..."
    )
    say_next("index", place, "--gallery", "people.gallery")


def accepted(words: Sequence[str], *, ask: bool) -> bool:
    """Whether a proposed reading is right, by whoever sits at the terminal; else say how to take it."""
    if ask and stands_at_terminal() and click.confirm("Is this how the names are to be read?", err=True):
        return True
    command = shlex.join(["reid", "check", *words])
    say(f"if that is right: {command}")
    say(f"if not: reid check folder {shlex.quote(words[1])} pattern=...")
    return False


def stands_at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def print_as_json(result: DatasetCheck, speeds: Sequence[Speed]) -> None:
    rates = {speed.name: speed.images_per_second for speed in speeds if not speed.problem}
    print_json(result.as_dict() | rates)


def print_all(result: DatasetCheck, speeds: Sequence[Speed], words: Sequence[str]) -> None:
    print_check(result)
    print_speeds(speeds)
    print_next(result, words)


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
    print_readings(result.reading)
    if result.samples:
        tell("\nfor example")
        print_samples(result.samples)
    print_findings(result.findings)


def print_readings(reading: Sequence[str]) -> None:
    if reading:
        tell("\nread as")
    for sentence in reading:
        tell(f"  {sentence}")


def print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print_finding(finding)
    if not findings:
        say("\nnothing to complain about")


def print_next(result: DatasetCheck, words: Sequence[str]) -> None:
    """The command to go on with, for photos of one's own: ``words`` are the layout, the root and options."""
    from reidkit.checks.next_step import next_words

    following = next_words(result, words)
    if following:
        say()
        if result.why_not_split and following[0] == "index":
            say(f"to search, but not to train on: {result.why_not_split}")
            say()
        say_next(*following)


def print_samples(samples: Sequence[Mapping[str, str]]) -> None:
    """A table of samples with the labels that were read of them."""
    columns = list(dict.fromkeys(name for sample in samples for name in sample))
    print_table(columns, [[sample.get(name, "") for name in columns] for sample in samples])


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
