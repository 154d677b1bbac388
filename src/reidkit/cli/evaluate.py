"""``reid evaluate``: scores of a run, or of any program's features, and their report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit import config
from reidkit.cli import completion
from reidkit.cli.options import EncoderPath, backend_option, by_flag, given, refuse, views_option
from reidkit.cli.output import json_option, print_json, print_table, say, tell

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder
    from reidkit.reports.run_report import Output, Scored, Scoring
    from reidkit.types import Dataset

_OF_RERANKING = {"k1": "--k1", "k2": "--k2", "lambda_value": "--lambda"}
_OF_IMAGES = {
    "data": "--data",
    "root": "--root",
    "split": "--split",
    "frames": "--frames",
    "feature": "--feature",
    "views": "--views",
    "branches": "--branches",
    "metric": "--metric",
    "multi_query": "--multi-query",
    "store_calibration": "--store-calibration",
    "options": "KEY=VALUE",
}
_OF_ONE_SPLIT = {"branches": "--branches", "store_calibration": "--store-calibration", "tables": "--tables"}


@click.command("evaluate")
@click.argument("run", type=EncoderPath())
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data",
    shell_complete=completion.layouts,
    help="Layout of the data set; the one the run was trained on if left out.",
)
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
@views_option
@click.option("--branches", is_flag=True, help="Compare all features of the network; write branches.csv.")
@click.option("--rerank", is_flag=True, help="Also score k-reciprocal re-ranking.")
@click.option("--k1", type=int, help="Of re-ranking: neighbours.  [default: 20]")
@click.option("--k2", type=int, help="Of re-ranking: neighbours averaged over.  [default: 6]")
@click.option("--lambda", "lambda_value", type=float, help="Of re-ranking: old share.  [default: 0.3]")
@click.option("--metric", help="Learn a distance from the training images: kissme, xqda, her or scs.")
@click.option("--multi-query", type=click.Choice(["mean", "max"]), help="Pool a query's images.")
@click.option("--store-calibration", is_flag=True, help="Keep in the encoder what scores mean, for search.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the results. If left out, the run folder; for a file, or other data, runs/FILE-DATA.",
)
@click.option("--report/--no-report", default=True, help="Write report.html.")
@backend_option
@click.option("--tables", is_flag=True, help="Write the report's numbers and charts as files, too.")
@json_option
def evaluate_command(run: Path, as_json: bool, **asked: Any) -> None:
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
    from reidkit.evaluation.feature_files import holds_features

    if not asked["rerank"]:
        refuse(by_flag(asked, _OF_RERANKING), "goes with --rerank")
    refuse(
        {"--tables": asked["tables"] and not asked["report"]}, "they are the report's; leave --no-report out"
    )
    if holds_features(run):
        scored = _score_features(run, asked)
        print_json(scored.as_dict()) if as_json else tell(scored, lines=True)
    else:
        _score_network(run, asked, as_json)


def _score_features(path: Path, asked: dict[str, Any]) -> Scored:
    from reidkit.reports.results_folder import folder_in_runs, made_from
    from reidkit.reports.run_report import evaluate_file

    of_images = {**by_flag(asked, _OF_IMAGES), "--backend": asked["backend"] != "auto"}
    refuse(of_images, f"{path} holds features, not a network; leave it out")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    refuse({"torchrun": several}, f"{path} holds features, which one process scores; leave it out")
    folder = asked["out"] or folder_in_runs(f"{path.stem}-features", made_from(features=path))
    scored = evaluate_file(path, asked["protocol"] or "market1501", _scoring(asked), _output(folder, asked))
    print_written(scored)
    return scored


def _score_network(run: Path, asked: dict[str, Any], as_json: bool) -> None:
    refuse(
        {"--protocol": asked["protocol"]},
        f"the protocol of {run} is that of the data it is tested on; leave it out",
    )
    from reidkit.encoders.loading import load_encoder
    from reidkit.training import distributed
    from reidkit.training.embed_validation import by_all_processes

    distributed.initialise()
    encoder = load_encoder(run, feature=asked["feature"], views=asked["views"], backend=asked["backend"])
    if distributed.world_size() > 1:
        refuse({"--branches": asked["branches"]}, "is for one process; leave torchrun out")
    with by_all_processes(encoder) as shared:
        if shared is not None:
            _score(shared, run, asked, as_json)


def _score(encoder: Encoder, run: Path, asked: dict[str, Any], as_json: bool) -> None:
    """On the main process."""
    from reidkit.progress import progress
    from reidkit.reports.chosen_data import Wanted, choose_data
    from reidkit.reports.results_folder import folder_of_run
    from reidkit.reports.run_report import evaluate_all_splits, evaluate_run

    _check_going_together(run, encoder, asked)
    wanted = Wanted(asked["data"], asked["root"], config.parse_options(asked["options"]), asked["split"])
    chosen = choose_data(run, wanted)
    if chosen.left_out:
        say(chosen.left_out)
    several = len(chosen.splits) > 1
    if several:
        refuse(by_flag(asked, _OF_ONE_SPLIT), "looks at one split; give its number in place of --split all")
    folder = asked["out"] or folder_of_run(run, chosen.splits[0])
    if asked["branches"]:
        _score_branches(encoder, run, chosen.splits[0], folder, asked, as_json)
    else:
        with progress("images embedded") as shown:
            scored = (
                evaluate_all_splits(encoder, chosen.splits, _scoring(asked), folder, run=run, progress=shown)
                if several
                else evaluate_run(
                    encoder,
                    chosen.splits[0],
                    _scoring(asked),
                    _output(folder, asked),
                    run=run,
                    store_calibration=asked["store_calibration"],
                    progress=shown,
                )
            )
        print_written(scored)
        print_json(scored.as_dict()) if as_json else tell(scored, lines=True)
    if chosen.seen:
        say(f"{run} {chosen.seen}")


def _score_branches(
    encoder: Encoder, run: Path, data: Dataset, folder: Path, asked: dict[str, Any], as_json: bool
) -> None:
    from reidkit.progress import progress
    from reidkit.reports.run_report import evaluate_branches

    with progress("images embedded") as shown:
        branches, table = evaluate_branches(encoder, data, _scoring(asked), folder, run=run, progress=shown)
    say(f"wrote {table}")
    print_branches(branches.rows(), as_json)


def _check_going_together(run: Path, encoder: Encoder, asked: dict[str, Any]) -> None:
    """Before the images are embedded, which takes minutes."""
    from reidkit.encoders.network_file import is_network_file

    branches, rerank, feature = asked["branches"], asked["rerank"], encoder.feature
    if asked["store_calibration"]:
        refuse(
            {"--store-calibration": is_network_file(run)},
            f"{run} was made elsewhere and cannot keep a calibration",
        )
        # The file would embed by it from now on.
        refuse({"--feature": feature}, "a calibration is stored for the network's own embedding only")
        refuse({"--views": asked["views"]}, "a calibration is stored for the views that the file embeds by")
        refuse({"--branches": branches}, "does not go with --store-calibration; run them one by one")
    if branches:
        refuse({"--tables": asked["tables"]}, "--branches writes no report; leave it out")
        refuse({"--rerank": rerank, "--feature": feature}, "--branches compares them all; leave it out")


def _scoring(asked: dict[str, Any]) -> Scoring:
    from reidkit.reports.run_report import Scoring
    from reidkit.reranking import RerankOptions

    options = {"average_precision": asked["average_precision"], "distance": asked["distance"]}
    own = given(
        camera_filter=asked["camera_filter"], metric=asked["metric"], multi_query=asked["multi_query"]
    )
    rerank = given(k1=asked["k1"], k2=asked["k2"], lambda_value=asked["lambda_value"])
    return Scoring({**options, **own}, RerankOptions(**rerank) if asked["rerank"] else None, asked["frames"])


def _output(folder: Path, asked: dict[str, Any]) -> Output:
    from reidkit.reports.run_report import Output

    return Output(folder, page=asked["report"], tables=asked["tables"])


def print_written(scored: Scored) -> None:
    """Say what was written, or why it was not."""
    say(f"wrote {scored.results}")
    if scored.encoder_file is not None:
        say(f"wrote {scored.encoder_file} with its calibration")
        say(scored.calibration, lines=True)
        say("note: fitted on test images: on them its rates hold by construction")
    if scored.page is not None:
        say(f"wrote {scored.page}")
    if scored.no_page:
        say(f"no report: {scored.no_page}")


def print_branches(rows: list[dict[str, Any]], as_json: bool) -> None:
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
