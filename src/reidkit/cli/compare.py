"""``reid compare``: two runs on the same data, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit import config
from reidkit.cli.data import RUNS, choose, load, refuse
from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.cli.scoring import Scoring, embed, test_part

if TYPE_CHECKING:
    from reidkit.calibration import DistanceDistributions
    from reidkit.report_comparison import ComparedRun, Differences
    from reidkit.significance import PairedDifference
    from reidkit.types import Dataset

SURE = 0.05
"""A difference is called one where its p-value is below."""


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", help="Layout of the data set; the one the first run was trained on if left out.")
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
    from reidkit.feature_files import holds_features
    from reidkit.files import write_atomically
    from reidkit.report_comparison import differences, write_comparison

    networks = [path for path in (first, second) if not holds_features(path)]
    dataset = None
    if networks:
        from reidkit.encoder import weights_file

        for path in networks:
            weights_file(path)  # says what is wrong with it before anything is embedded
        refuse({"--protocol": protocol}, f"the protocol of {networks[0]} is that of the data it is tested on")
        with_config = [path for path in networks if (path / "config.toml").is_file()]
        chosen = choose((with_config or networks)[0], data, root, config.parse_options(options))
        _check_same_training_data(with_config, data)
        dataset = load(chosen, None if split is None else str(split))[0]
    else:
        given = {"--data": data, "--root": root, "--split": split is not None, "KEY=VALUE": options}
        refuse(given, "both files hold features; leave it out")
    names = [_name(path) for path in (first, second)]
    out = out or RUNS / "-vs-".join(names)
    if names[0] == names[1]:
        names = [str(first), str(second)]
    one, other = (
        _score_features(name, path, dataset, protocol or "market1501", camera_filter)
        if holds_features(path)
        else _score_network(name, path, dataset, camera_filter)
        for name, path in zip(names, (first, second), strict=True)
    )
    found = differences(one, other)
    page = write_comparison(out / "comparison.html", one, other, found)
    values = _values(found, one, other)
    say(f"wrote {write_atomically(out / 'comparison.json', json.dumps(values, indent=2))}")
    say(f"wrote {page}")
    if as_json:
        print_json(values)
    else:
        _print(values, one, other)


def _values(found: Differences, first: ComparedRun, second: ComparedRun) -> dict[str, Any]:
    """Scores of both with their differences, and how far apart each holds its pairs."""
    paired = {row.name: _difference(row.paired) if row.paired else None for row in found.rows}
    score = found.rows[0]
    return {
        "first": _one(first, found.distances[0]),
        "second": _one(second, found.distances[1]),
        "paired": paired,
        "verdict": _verdict(second.name, score.name, score.paired),
    }


def _verdict(name: str, score: str, difference: PairedDifference | None) -> str:
    """One plain sentence on a difference in a score."""
    if difference is None:
        return f"no difference shown: one identity asks alone, and how {score} varies cannot be told from it"
    points, (low, high) = 100 * difference.difference, (100 * end for end in difference.interval)
    interval = f"95 % interval {low:+.1f} to {high:+.1f}"
    found = f"{score} {points:+.1f} points, {interval}, p = {difference.p_value:.3g}"
    found += f", over {difference.num_identities:,} identities"
    if difference.p_value >= SURE:
        return f"no difference shown: {found}"
    return f"{name} is {'better' if points > 0 else 'worse'}: {found}"


def _one(run: ComparedRun, distances: DistanceDistributions) -> dict[str, Any]:
    return {
        "name": run.name,
        **run.evaluation.as_dict(),
        "distances": {
            "overlap": distances.overlap,
            "gap": distances.gap,
            "mean_positive": distances.mean_positive,
            "mean_negative": distances.mean_negative,
        },
    }


def _difference(found: PairedDifference) -> dict[str, Any]:
    return {"difference": found.difference, "interval": list(found.interval), "p_value": found.p_value}


def _check_same_training_data(runs: list[Path], data: str | None) -> None:
    from reidkit.errors import ConfigError

    names = {str(path): config.load(path / "config.toml").data for path in runs}
    own = {(settings.name, str(settings.root), str(settings.options)) for settings in names.values()}
    if data is None and len(own) > 1:
        raise ConfigError(
            f"{' and '.join(names)} were trained on different data; say with --data NAME --root FOLDER on "
            "which to compare them"
        )


def _score_network(name: str, path: Path, dataset: Dataset | None, camera_filter: str | None) -> ComparedRun:
    from reidkit import evaluation as scoring_of
    from reidkit.encoder import load_encoder
    from reidkit.report_comparison import ComparedRun

    assert dataset is not None
    scoring_of.check_evaluation(dataset, camera_filter=camera_filter)
    source = embed(load_encoder(path), [dataset], Scoring())
    evaluation = scoring_of.evaluate(source, dataset, camera_filter=camera_filter)
    return ComparedRun(
        name,
        evaluation,
        **test_part(source, dataset)._asdict(),
        camera_filter=camera_filter or scoring_of.own_camera_filter(dataset),
        galleries=dataset.galleries,
    )


def _score_features(
    name: str, path: Path, dataset: Dataset | None, protocol: str, camera_filter: str | None
) -> ComparedRun:
    """A file of features; beside a network, under the protocol of the network's data."""
    from reidkit import evaluation as scoring_of
    from reidkit.feature_files import load_features
    from reidkit.features import pool_tracklets
    from reidkit.protocols import PROTOCOLS
    from reidkit.report_comparison import ComparedRun

    query, gallery = load_features(path)
    galleries = None
    if dataset is not None:
        protocol, galleries = dataset.protocol, dataset.galleries
        camera_filter = camera_filter or scoring_of.own_camera_filter(dataset)
    camera_filter = camera_filter or PROTOCOLS.get(protocol)
    evaluation = scoring_of.evaluate_features(
        query, gallery, protocol=protocol, camera_filter=camera_filter, galleries=galleries
    )
    if protocol == "tracklets":
        query, gallery = pool_tracklets(query), None if gallery is None else pool_tracklets(gallery)
    return ComparedRun(
        name,
        evaluation,
        query,
        gallery,
        camera_filter=camera_filter or "same_identity",
        galleries=galleries,
    )


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _print(values: dict[str, Any], first: ComparedRun, second: ComparedRun) -> None:
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
    tell(values["verdict"])
