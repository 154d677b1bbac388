"""Score a network made elsewhere on real images; write the table into docs/results.md.

    python benchmarks/external_network.py $REIDKIT_DATA

The network is Open Model Zoo's person-reidentification-retail-0288, in OpenVINO's format.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import openvino
import torch

import reidkit as rk
from results import processor, write_section

NAME = "person-reidentification-retail-0288"
NUM_SPLITS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with models/, market1501-500/ and viper/")
    data = parser.parse_args().data
    encoder = rk.load_encoder(data / "models" / NAME / f"{NAME}.xml")
    started = time.perf_counter()
    market = score(encoder, rk.load_dataset("market1501", data / "market1501-500"))
    seconds = time.perf_counter() - started
    splits = [
        score(encoder, rk.load_dataset("viper", data / "viper", split=k, direction=direction))
        for k in range(NUM_SPLITS)
        for direction in ("a_to_b", "b_to_a")
    ]
    table = "\n".join(
        [
            "| data | mAP | rank-1 | rank-5 | rank-10 |",
            "|---|---|---|---|---|",
            row("Market-1501, 100 identities", [market]),
            row("VIPeR, camera a asks b, 10 splits", splits[::2]),
            row("VIPeR, camera b asks a, 10 splits", splits[1::2]),
            "",
            f"{market.num_queries + market.num_gallery:,} images in {seconds:.1f} s (reading, embedding, "
            f"ranking), {torch.get_num_threads()} thread of {processor()}, OpenVINO {version()}, NumPy "
            f"{np.__version__}.",
        ]
    )
    write_section("external-network", table)
    print(table)


def score(encoder: rk.Encoder, data: rk.Dataset) -> rk.Evaluation:
    # Market-1501's protocol for both: with one gallery image a person and camera all protocols are one.
    return rk.evaluate_features(encoder.features(data.query), encoder.features(data.gallery))


def row(name: str, evaluations: list[rk.Evaluation]) -> str:
    """Means in percent, with the standard deviation over splits where there are several."""
    columns = [[100 * e.mean_average_precision for e in evaluations]]
    columns += [[100 * e.rank(k) for e in evaluations] for k in (1, 5, 10)]
    cells = [f"{mean(c):.1f} ± {stdev(c):.1f}" if len(c) > 1 else f"{c[0]:.1f}" for c in columns]
    return f"| {name} | {' | '.join(cells)} |"


def version() -> str:
    return str(openvino.__version__).partition("-")[0]


if __name__ == "__main__":
    main()
