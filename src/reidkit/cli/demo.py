"""``reid demo``: the whole job, from nothing to a result a person can look at."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import click

from reidkit import config
from reidkit.cli.output import say, tell

_NUM_STEPS = 5


@click.command("demo")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/demo"), show_default=True
)
def demo_command(out: Path) -> None:
    """Draw people, check them, train on some, test on others, write a report, fill a gallery, search it.

    Run it again to go on where it stopped; what is done is not done twice.
    """
    started = time.monotonic()
    people, run = out / "people", out / "run"
    recipe = config.load("demo", [f'data.root="{people.as_posix()}"'])
    print_step(1, "drawing people")
    _draw(people)
    print_step(2, "checking the data set")
    _check(people)
    print_step(3, "training on some of them")
    _train(recipe, run)
    print_step(4, "testing on the others, writing the report")
    _evaluate(out, run, people)
    print_step(5, "filling a gallery and searching it")
    query = _search(out, run, people)
    print_places(out, seconds=time.monotonic() - started)
    print_commands(out, query)


def print_step(number: int, what: str) -> None:
    say(f"\n[{number}/{_NUM_STEPS}] {what}", bold=True)


def print_places(out: Path, *, seconds: float) -> None:
    """Where results lie."""
    say(f"\nDone in {seconds:.0f} s. Look at:")
    for path, what in [
        (out / "report.html", "scores, curves, ranked lists: open it in a browser"),
        (out / "search.png", "what three searches found"),
        (out / "run", "the trained encoder, its configuration and its metrics"),
        (out / "people.gallery", "the gallery"),
        (out / "people", "the drawn people, in Market-1501's folders"),
    ]:
        tell(f"  {path}  {what}")


def print_commands(out: Path, query: Path) -> None:
    """What to try next."""
    say("\nTry next:")
    reid = _program()
    for command in [
        f"{reid} search {query} --gallery {out / 'people.gallery'} --where camera!=1",
        f"{reid} check folder YOUR_PHOTOS/",
        f"{reid} index {out / 'run'} YOUR_PHOTOS/ --gallery mine.gallery",
        f"{reid} recipes",
    ]:
        tell(f"  {command}")


def _program() -> str:
    """What to type to run this program again: it may lie in an environment that is not activated."""
    if shutil.which("reid"):
        return "reid"
    own = Path(sys.argv[0])
    if own.name == "__main__.py":
        return "python -m reidkit"
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


def _draw(people: Path) -> None:
    from reidkit.datasets.synthetic.dataset import make_synthetic_from
    from reidkit.datasets.synthetic.demo import WORLD
    from reidkit.progress import progress

    with progress("images drawn") as shown:
        make_synthetic_from(people, WORLD, progress=shown)


def _check(people: Path) -> None:
    from reidkit.checks.check import check_dataset
    from reidkit.cli.check import print_check
    from reidkit.datasets import load_dataset

    print_check(check_dataset(load_dataset("synthetic", people)))


def _train(recipe: config.Config, run: Path) -> None:
    from reidkit.cli.train import train

    train(recipe, run)


def _evaluate(out: Path, run: Path, people: Path) -> None:
    from reidkit.cli.evaluate import print_written
    from reidkit.datasets import load_dataset
    from reidkit.encoders.loading import load_encoder
    from reidkit.progress import progress
    from reidkit.reports.run_report import Output, Scoring, evaluate_run

    data, output = load_dataset("synthetic", people), Output(out, title="Demo: drawn people")
    with progress("images embedded") as shown:
        scored = evaluate_run(load_encoder(run), data, Scoring(), output, run=run, progress=shown)
    print_written(scored)
    tell(scored, lines=True)


def _search(out: Path, run: Path, people: Path) -> Path:
    """Returns one of the images that were searched for."""
    from reidkit.cli.index import print_added
    from reidkit.cli.search import print_hits
    from reidkit.datasets import load_dataset
    from reidkit.datasets.synthetic.demo import people_to_find, people_to_search_for
    from reidkit.progress import progress
    from reidkit.reports.search_picture import draw_hits
    from reidkit.search.searcher import Searcher

    data, location = load_dataset("synthetic", people), out / "people.gallery"
    with Searcher(location, encoder=run) as searcher:
        with progress("images indexed") as shown:
            added = searcher.add(people_to_find(data), progress=shown)
        print_added(added, location, len(searcher))
        paths, identities = people_to_search_for(data)
        found = searcher.search(paths, top=10)
    print_hits(paths[:1], found[:1])
    draw_hits(out / "search.png", paths, found, identities=identities)
    return paths[0]
