"""Score a network made elsewhere on real images; write the table into docs/results.md.

    python benchmarks/external_network.py $REIDKIT_DATA

The network is Open Model Zoo's person-reidentification-retail-0288, in OpenVINO's format.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import openvino
import torch

import reidkit as rk
from reidkit.evaluation.split_average import SplitAverage, evaluate_splits
from results import processor, write_section

NAME = "person-reidentification-retail-0288"
NUM_SPLITS = 10
COLUMNS = ("mAP", "rank-1", "rank-5", "rank-10")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with models/, market1501-500/ and viper/")
    data = parser.parse_args().data
    encoder = rk.load_encoder(data / "models" / NAME / f"{NAME}.xml")
    started = time.perf_counter()
    market = rk.evaluate(encoder, rk.load_dataset("market1501", data / "market1501-500"))
    seconds = time.perf_counter() - started
    table = "\n".join(
        [
            f"| data | {' | '.join(COLUMNS)} |",
            "|---|---|---|---|---|",
            f"| Market-1501, 100 identities | {row(market)} |",
            f"| VIPeR, camera a asks b, 10 splits | {row(viper(encoder, data, 'a_to_b'))} |",
            f"| VIPeR, camera b asks a, 10 splits | {row(viper(encoder, data, 'b_to_a'))} |",
            f"| VIPeR, both, 10 splits | {row(viper(encoder, data, 'both'))} |",
            "",
            f"{market.num_queries + market.num_gallery:,} images in {seconds:.1f} s (reading, embedding, "
            f"ranking), {torch.get_num_threads()} thread of {processor()}, OpenVINO {version()}, NumPy "
            f"{np.__version__}.",
        ]
    )
    write_section("external-network", table)
    print(table)


def viper(encoder: rk.Encoder, data: Path, direction: str) -> SplitAverage:
    """What `reid evaluate --data viper --split all` computes."""
    splits = [
        rk.load_dataset("viper", data / "viper", split=k, direction=direction) for k in range(NUM_SPLITS)
    ]
    return evaluate_splits(encoder, splits)


def row(result: rk.Evaluation | SplitAverage) -> str:
    """Scores in percent, with the standard deviation over splits where there are several."""
    values = result.as_dict()
    deviations = values.get("standard_deviation", {})
    cells = [
        f"{100 * values[name]:.1f}" + (f" ± {100 * deviations[name]:.1f}" if deviations else "")
        for name in COLUMNS
    ]
    return " | ".join(cells)


def version() -> str:
    return str(openvino.__version__).partition("-")[0]


if __name__ == "__main__":
    main()
