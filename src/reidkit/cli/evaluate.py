"""``reid evaluate``: scores of a run, or of any program's features, and their report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit import config
from reidkit.cli.data import choose, load, refuse, results_folder
from reidkit.cli.output import json_option, print_json, print_table, say, tell
from reidkit.cli.scoring import (
    ReportParts,
    Scoring,
    compare_features,
    evaluate_all,
    evaluate_data,
    evaluate_file,
    values_of,
)

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.types import Dataset, Evaluation


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--data", help="Layout of the data set; the one the run was trained on if left out.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option("--split", help="Of a set with several train/test splits: the number of one, or `all`.")
@click.option("--frames", type=int, help="Of a set of tracklets: frames of each to look at; all if left out.")
@click.option("--protocol", help="Of a file of features: market1501 if left out, or another.")
@click.option("--camera-filter", help="same_identity, other_cameras or none, in place of the usual one.")
@click.option(
    "--average-precision", type=click.Choice(["step", "trapezoid"]), default="step", show_default=True
)
@click.option("--distance", type=click.Choice(["cosine", "l1"]), default="cosine", show_default=True)
@click.option("--feature", help="Embed by this feature of the network: global, local, ... of JLML.")
@click.option("--branches", is_flag=True, help="Compare all features of the network; write branches.csv.")
@click.option("--rerank", is_flag=True, help="Also score k-reciprocal re-ranking.")
@click.option("--k1", type=int, help="Of re-ranking: neighbours.  [default: 20]")
@click.option("--k2", type=int, help="Of re-ranking: neighbours averaged over.  [default: 6]")
@click.option("--lambda", "lambda_value", type=float, help="Of re-ranking: old share.  [default: 0.3]")
@click.option("--metric", help="Learn a distance from the training images: kissme or xqda.")
@click.option("--multi-query", type=click.Choice(["mean", "max"]), help="Pool a query's images.")
@click.option("--store-calibration", is_flag=True, help="Keep in the encoder what scores mean, for search.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results. If left out, the run folder; for a file, runs/FILE-DATA.",
)
@click.option("--report/--no-report", default=True, help="Write report.html.")
@click.option("--tables", is_flag=True, help="Write the report's numbers and charts as files, too.")
@json_option
def evaluate_command(
    run: Path,
    options: tuple[str, ...],
    data: str | None,
    root: Path | None,
    split: str | None,
    frames: int | None,
    protocol: str | None,
    camera_filter: str | None,
    average_precision: str,
    distance: str,
    feature: str | None,
    branches: bool,
    rerank: bool,
    k1: int | None,
    k2: int | None,
    lambda_value: float | None,
    metric: str | None,
    multi_query: str | None,
    store_calibration: bool,
    out: Path | None,
    report: bool,
    tables: bool,
    as_json: bool,
) -> None:
    """Score RUN on the query and gallery images of a data set.

    RUN is a run folder, a network's file (.safetensors, .onnx, .xml), or a file of features that any program
    wrote (.npz, .parquet, a folder of .npy; `reid encode` writes such files).

    \b
    reid evaluate runs/mine
    reid evaluate runs/mine --rerank --metric xqda
    reid evaluate runs/jlml --branches
    reid evaluate model.onnx --data viper --root data/ --split all direction=a_to_b
    reid evaluate features.npz --protocol single_gallery_shot

    The protocol is the data set's own. KEY=VALUE are options of its layout (`reid list datasets`).
    """
    from reidkit.feature_files import holds_features
    from reidkit.reranking import RerankOptions

    scoring = Scoring(
        {
            "average_precision": average_precision,
            "distance": distance,
            **_given(camera_filter=camera_filter, metric=metric, multi_query=multi_query),
        },
        RerankOptions(**_given(k1=k1, k2=k2, lambda_value=lambda_value)) if rerank else None,
    )
    if not rerank:
        refuse({"--k1": k1, "--k2": k2, "--lambda": lambda_value}, "goes with --rerank")
    refuse({"--tables": tables and not report}, "they are the report's; leave --no-report out")
    report_parts = ReportParts(report, tables)
    if holds_features(run):
        needs_images = {
            "--data": data,
            "--root": root,
            "--split": split,
            "--frames": frames,
            "--feature": feature,
            "--branches": branches,
            "--metric": metric,
            "--multi-query": multi_query,
            "--store-calibration": store_calibration,
            "KEY=VALUE": options,
        }
        refuse(needs_images, f"{run} holds features, not a network; leave it out")
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        refuse({"torchrun": several}, f"{run} holds features, which one process scores; leave it out")
        out = out or results_folder(run, "features")
        evaluations = evaluate_file(run, protocol or "market1501", scoring, out=out, parts=report_parts)
        _print(evaluations, {"data": str(run)}, as_json)
        return
    refuse(
        {"--protocol": protocol}, f"the protocol of {run} is that of the data it is tested on; leave it out"
    )
    from reidkit import distributed
    from reidkit.encoder import load_encoder
    from reidkit.validation import SharedEncoder, help_main

    shared: SharedEncoder | None = None
    distributed.initialise()
    encoder = load_encoder(run, feature=feature)
    if distributed.world_size() > 1:
        refuse({"--branches": branches}, "is for one process; leave torchrun out")
        if not distributed.is_main():
            with distributed.failures_explained():
                help_main(encoder)
                _leave_together()
            return
        encoder = shared = SharedEncoder(encoder)
    if store_calibration:
        _check_can_be_stored(run, encoder)
        refuse({"--branches": branches}, "does not go with --store-calibration; run them one by one")
    chosen = choose(run, data, root, config.parse_options(options))
    splits = load(chosen, split)
    out = out or results_folder(run, splits[0].name)
    if len(splits) > 1:
        one = {"--branches": branches, "--store-calibration": store_calibration, "--tables": tables}
        refuse(one, "looks at one split; give its number in place of --split all")
    if branches:
        refuse({"--tables": tables}, "--branches writes no report; leave it out")
        _print_branches(compare_features(encoder, splits[0], scoring, out=out, frames=frames), as_json)
    elif len(splits) > 1:
        texts, values = evaluate_all(encoder, splits, scoring, out=out, frames=frames)
        print_json(values) if as_json else tell(texts)
    else:
        evaluations = evaluate_data(
            encoder,
            splits[0],
            scoring,
            out=out,
            run=run if run.is_dir() else None,
            parts=report_parts,
            frames=frames,
            calibrate=run if store_calibration else None,
        )
        _print(evaluations, {"data": splits[0].name}, as_json)
    if chosen.trained_split is not None and splits[0].num_splits > 1:
        own_split = f"split {chosen.trained_split} of {chosen.name}"
        say(f"{run} was trained on {own_split}; it has seen the test persons of all other splits")
    if shared is not None:
        shared.release()
        _leave_together()


def evaluate(
    encoder: Encoder,
    dataset: Dataset,
    *,
    out: Path,
    run: Path | None,
    report: bool = True,
    title: str | None = None,
) -> Evaluation:
    """Embed, score, write ``evaluation.json`` and ``report.html`` into ``out``."""
    return evaluate_data(
        encoder, dataset, Scoring(), out=out, run=run, parts=ReportParts(report), title=title
    )[0]


def _check_can_be_stored(run: Path, encoder: Encoder) -> None:
    """Before the images are embedded, which takes minutes."""
    from reidkit.external import is_network_file

    foreign = is_network_file(run)
    refuse({"--store-calibration": foreign}, f"{run} was made elsewhere and cannot keep a calibration")
    # The file would embed by it from now on.
    refuse({"--feature": encoder.feature}, "a calibration is stored for the network's own embedding only")


def _leave_together() -> None:
    """A launcher ends all processes when one fails, and none should have gone before."""
    from reidkit import distributed

    distributed.barrier()
    distributed.shutdown()


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _print(evaluations: Sequence[Evaluation], about: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json({**about, **values_of(evaluations)})
    else:
        tell("\n\n".join(map(str, evaluations)))


def _print_branches(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    columns = ["feature", "mAP", "rank-1", "right", "alone right", "soonest"]
    shown = []
    for row in rows:
        feature, *values = row.values()
        percent = [f"{100 * value:.1f}" for value in values[:2]]
        shown.append([feature, *percent, *values[2:]])
    print_table(columns, shown, right=columns[1:])
    tell(
        "right: queries whose first hit is right; alone right: by this feature only; "
        "soonest: its first right hit comes before all others'"
    )
