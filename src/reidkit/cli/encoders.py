"""``reid encoders``: ready-made networks, that of the package and those of others that can be had."""

from __future__ import annotations

from dataclasses import asdict

import click

from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.encoders.ready_made import ReadyMade, find_ready_made, ready_made

_SCORED_ON = ("market1501", "msmt17")


@click.command("encoders")
@click.argument("name", required=False)
@json_option
def encoders_command(name: str | None, as_json: bool) -> None:
    """List ready-made person re-identification networks; with NAME, how to get and import one.

    The first comes with reidkit and needs nothing else; the others were trained elsewhere.
    """
    if name is None:
        print_all(as_json)
    elif as_json:
        print_json(asdict(find_ready_made(name)))
    else:
        print_details(find_ready_made(name))


def print_all(as_json: bool) -> None:
    """The whole table."""
    if as_json:
        print_json([asdict(encoder) for encoder in ready_made()])
        return
    rows = [
        (encoder.name, encoder.trained_on, *(_score_text(encoder, data) for data in _SCORED_ON))
        for encoder in ready_made()
    ]
    print_table(["name", "trained on", *_SCORED_ON], rows, prose=("trained on",))
    say(
        "\nreidkit-small is here already, for a start; the others are to be fetched. "
        "Scores are rank-1 and mAP as published. `reid encoders NAME` says where to get one, its "
        "licence and the command that imports it. Terms of the data that it learned from, mostly research "
        "only, come on top."
    )


def print_details(encoder: ReadyMade) -> None:
    """All that is known of one, a line each."""
    scores = "; ".join(f"{data} {_score_text(encoder, data)}" for data in encoder.scores)
    lines = {
        "network": encoder.network,
        "trained on": encoder.trained_on,
        "rank-1, mAP": scores and f"{scores} ({encoder.source})",
        "licence": encoder.licence or "not found: ask the project",
        "page": encoder.page,
        "file": encoder.file
        or "by the links on that page" + (" (FILE below)" if "FILE" in encoder.command else ""),
        "sha256": ", ".join(f"{file} {value}" for file, value in encoder.sha256.items()) or "not published",
        "note": encoder.note,
        "command": encoder.command,
    }
    for title, text in lines.items():
        if text:
            tell(f"{title:12}{text}")


def _score_text(encoder: ReadyMade, data: str) -> str:
    """Rank-1 and mAP on a data set, for a table; empty where none was published."""
    if data not in encoder.scores:
        return ""
    rank1, average_precision = encoder.scores[data]
    return f"{rank1:.1f}, {average_precision:.1f}"
