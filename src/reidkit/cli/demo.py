"""``reid demo``: the whole job, from nothing to a result a person can look at."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from reidkit import config
from reidkit.cli.output import say, tell

# Enough people to learn from in two minutes, and others to be tested on.
WORLD = {
    "num_train_identities": 300,
    "num_test_identities": 60,
    "images_per_camera": 3,
    "num_workers": 2,
    "seed": 0,
}


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
    steps: list[tuple[str, Callable[[], None]]] = [
        ("drawing people", lambda: _draw(people)),
        ("checking the data set", lambda: _check(people)),
        ("training on some of them", lambda: _train(recipe, run)),
        ("testing on the others, writing the report", lambda: _evaluate(out, run, people)),
        ("filling a gallery and searching it", lambda: _search(out, run, people)),
    ]
    for number, (what, do) in enumerate(steps, start=1):
        say(f"\n[{number}/{len(steps)}] {what}", bold=True)
        do()
    say(f"\nDone in {time.monotonic() - started:.0f} s. Look at:")
    for path, what in [
        (out / "report.html", "scores, curves, ranked lists: open it in a browser"),
        (out / "search.png", "what three searches found"),
        (run, "the trained encoder, its configuration and its metrics"),
        (out / "people.gallery", "the gallery"),
        (people, "the drawn people, in Market-1501's folders"),
    ]:
        tell(f"  {path}  {what}")
    query = sorted((people / "query").glob("*.jpg"))[0]
    say("\nTry next:")
    reid = _program()
    for command in [
        f"{reid} search {query} --gallery {out / 'people.gallery'} --where camera!=1",
        f"{reid} check folder YOUR_PHOTOS/",
        f"{reid} index {run} YOUR_PHOTOS/ --gallery mine.gallery",
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
    from reidkit.cli.check import make_people

    make_people(people, dict(WORLD))


def _check(people: Path) -> None:
    from reidkit.check import check_dataset
    from reidkit.cli.check import print_check
    from reidkit.datasets import load_dataset

    print_check(check_dataset(load_dataset("synthetic", people)))


def _train(recipe: config.Config, run: Path) -> None:
    from reidkit.cli.train import train

    train(recipe, run)


def _evaluate(out: Path, run: Path, people: Path) -> None:
    from reidkit.cli.evaluate import evaluate
    from reidkit.datasets import load_dataset
    from reidkit.encoder import load_encoder

    scores = evaluate(
        load_encoder(run), load_dataset("synthetic", people), out=out, run=run, title="Demo: drawn people"
    )
    tell(str(scores))


def _search(out: Path, run: Path, people: Path) -> None:
    from reidkit.cli.index import fill
    from reidkit.cli.search import draw_hits, print_hits
    from reidkit.datasets import load_dataset
    from reidkit.search import Searcher
    from reidkit.types import JUNK

    data = load_dataset("synthetic", people)
    location = out / "people.gallery"
    fill(location, run, [sample for sample in data.gallery if sample.identity != JUNK])
    queries = data.query[:: max(1, len(data.query) // 3)][:3]
    paths = [sample.path for sample in queries]
    with Searcher(location, encoder=run) as searcher:
        found = [list(result.hits) for result in searcher.search(paths, top=10)]
    print_hits(paths[:1], found[:1])
    draw_hits(paths, found, out / "search.png", identities=[str(sample.identity) for sample in queries])
