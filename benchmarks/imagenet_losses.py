"""Why MSML trails: metric losses beside the identity loss, from ImageNet weights, in one cheap set-up.

    python benchmarks/imagenet_losses.py $REIDKIT_DATA/market1501-500 [--out FOLDER] [--rows PATTERN ...]
    python benchmarks/imagenet_losses.py $REIDKIT_DATA/market1501-500 --list
    python benchmarks/imagenet_losses.py $REIDKIT_DATA/market1501-500 --write

EfficientNet-Lite0 at 128 x 64, all before its last stage fixed (`fixed_maps.py`); last stage, last
convolution and neck are trained (`loss_trials.py`). What is measured is kept as a line of `runs.jsonl` and
not measured again, so that a call that was stopped goes on. A row is called as in the table; patterns such as
'*SGD' and '* MSML, margin *' choose several. Rows of the table that were not measured in the folder stay as
they are when it is written.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fixed_maps import CachedData, Network, load
from loss_trials import HardPairsLoss, Training, Variant, probe, weights_file
from reidkit.analysis.bootstrap import paired_difference
from reidkit.losses import (
    BatchHardTripletLoss,
    HardAwarePointToSetLoss,
    MarginSampleMiningLoss,
    SupportNeighborLoss,
)
from results import in_points, processor, rows_before, spread, write_section

LITE0 = Network("tf_efficientnet_lite0", "efficientnet-lite0", 128, 64, fixed_blocks=6, last_stride=2)
# Where gradients are looked at: as ImageNet left the network, and after these trainings.
PROBED = ("", "4 epochs of identity + TriHard", "identity + TriHard", "identity + MSML")
PAIRS_OF = ("identity", "identity + TriHard", "identity + MSML")
Record = dict[str, Any]


def variants() -> dict[str, Variant]:
    """By name, in the order in which they are run: what matters most comes first."""
    msml, trihard = MarginSampleMiningLoss, BatchHardTripletLoss
    hap2s = HardAwarePointToSetLoss(weighting="exponential")
    one, two = (0,), (0, 1)
    sgd = {"optimizer": "sgd", "lr": 0.05, "seeds": one}
    found = {
        "ImageNet's features as they are": Variant(epochs=0, seeds=one),
        "identity": Variant(),
        "identity + TriHard": Variant(trihard()),
        "identity + MSML": Variant(msml()),
        "identity + 0.1 MSML": Variant(msml(), weight=0.1),
        "identity + 0.03 MSML": Variant(msml(), weight=0.03),
        "identity + 0.3 MSML": Variant(msml(), weight=0.3),
        "identity + TriHard, learning rate 3e-4": Variant(trihard(), lr=3e-4, seeds=one),
        "identity + TriHard, learning rate 3e-3": Variant(trihard(), lr=3e-3, seeds=one),
        "identity + MSML, SGD": Variant(msml(), baseline="identity, SGD", **sgd),
        "identity + TriHard, SGD": Variant(trihard(), baseline="identity, SGD", **sgd),
        "identity, SGD": Variant(**sgd),
        "identity + MSML, equal norms": Variant(msml(), equal_norms=True),
        "identity + TriHard, equal norms": Variant(trihard(), equal_norms=True, seeds=one),
        "identity + MSML of 4 parts of the batch": Variant(HardPairsLoss(groups=4), seeds=two),
        "identity + MSML of 8 parts of the batch": Variant(HardPairsLoss(groups=8)),
        "identity + smooth MSML, T = 0.1": Variant(msml(temperature=0.1)),
        "identity + smooth MSML, T = 0.1, margin 1": Variant(msml(margin=1.0, temperature=0.1)),
        "identity + smooth MSML, T = 0.3": Variant(msml(temperature=0.3), seeds=one),
        "identity + smooth MSML, T = 0.03": Variant(msml(temperature=0.03), seeds=one),
        "identity + smooth MSML, T = 0.01": Variant(msml(temperature=0.01), seeds=one),
        "identity + mean of the 32 hardest pairs": Variant(HardPairsLoss(num=32)),
        "identity + mean of the 8 hardest pairs": Variant(HardPairsLoss(num=8), seeds=one),
        "identity + 2nd hardest pair": Variant(HardPairsLoss(place=2), seeds=one),
        "identity + 5th hardest pair": Variant(HardPairsLoss(place=5), seeds=one),
        "identity + 10th hardest pair": Variant(HardPairsLoss(place=10), seeds=one),
        "identity + MSML, margin 0.1": Variant(msml(margin=0.1), seeds=one),
        "identity + MSML, margin 0.6": Variant(msml(margin=0.6), seeds=one),
        "identity + MSML, soft margin": Variant(HardPairsLoss(soft=True), seeds=one),
        "identity + MSML from epoch 4": Variant(msml(), from_epoch=4),
        "4 epochs of identity + TriHard": Variant(trihard(), epochs=4),
    }
    start = "4 epochs of identity + TriHard"
    later = {"start": start, "epochs": 4, "lr": 3e-4, "baseline": "... then 4 of identity"}
    found |= {
        "... then 4 of identity": Variant(**later),
        "... then 4 of identity + TriHard": Variant(trihard(), **later),
        "... then 4 of identity + MSML": Variant(msml(), **later),
        "... then 4 of identity + 0.1 MSML": Variant(msml(), weight=0.1, **later),
        "identity + HAP2S E": Variant(hap2s, seeds=two),
        "identity + SN": Variant(SupportNeighborLoss(), seeds=two),
        "TriHard alone": Variant(trihard(), without_identity=True, lr=3e-4, seeds=one),
        "MSML alone": Variant(msml(), without_identity=True, lr=3e-4, seeds=one),
        "24 epochs of identity": Variant(epochs=24, seeds=one, baseline="24 epochs of identity"),
        "24 epochs of identity + MSML": Variant(
            msml(), epochs=24, seeds=one, baseline="24 epochs of identity"
        ),
        "24 epochs of identity + TriHard": Variant(
            trihard(), epochs=24, seeds=one, baseline="24 epochs of identity"
        ),
        "24 epochs of identity + 0.1 MSML": Variant(
            msml(), weight=0.1, epochs=24, seeds=one, baseline="24 epochs of identity"
        ),
    }
    forty = {"epochs": 40, "seeds": one, "baseline": "40 epochs of identity"}
    found |= {
        "40 epochs of identity": Variant(**forty),
        "40 epochs of identity + TriHard": Variant(trihard(), **forty),
        "40 epochs of identity + MSML": Variant(msml(), **forty),
        "40 epochs of identity + smooth MSML, T = 0.1": Variant(msml(temperature=0.1), **forty),
    }
    fc = {"neck": "fc", "baseline": "FC-1024: identity"}
    # 16 epochs of its batches of 32 x 4 are as many steps.
    paper = {
        "neck": "fc",
        "dropout": 0.5,
        "identities": 32,
        "epochs": 16,
        "baseline": "MSML's paper: identity",
    }
    for setting, options in (("FC-1024", fc), ("MSML's paper", paper)):
        found |= {
            f"{setting}: identity": Variant(**options),
            f"{setting}: identity + TriHard": Variant(trihard(), **options),
            f"{setting}: identity + MSML": Variant(msml(), **options),
            f"{setting}: identity + smooth MSML, T = 0.1": Variant(msml(temperature=0.1), **options),
            f"{setting}: identity + smooth MSML, T = 0.1, margin 1": Variant(
                msml(margin=1.0, temperature=0.1), **options
            ),
        }
    found["FC-1024: identity + JLML's sparsity"] = Variant(sparsity=5e-4, **fc)
    for name, metric in {
        "identity": None,
        "identity + TriHard": trihard(),
        "identity + HAP2S E": hap2s,
        "identity + SN": SupportNeighborLoss(),
        "identity + MSML": msml(),
    }.items():
        found[f"{name}, 30 % wrong labels"] = Variant(
            metric, wrong_labels=0.3, seeds=two, baseline="identity, 30 % wrong labels"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder in Market-1501's layout")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/imagenet-losses"), help="where lines and maps go"
    )
    parser.add_argument("--rows", nargs="*", default=["*"], help="names or patterns of some of the variants")
    parser.add_argument("--list", action="store_true", help="name the variants and what is there of them")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="some of the seeds")
    parser.add_argument(
        "--write", action="store_true", help="write the tables of what is there; train nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = matching(options.rows)
    records = lines(options.out / "runs.jsonl")
    if options.list:
        for name in chosen:
            print(f"{name}: {len(of_variant(records, name))} of {len(variants()[name].seeds)} seeds")
        return
    if not options.write:
        data = CachedData(load(options.data), LITE0, options.out)
        measure(data, options.out, chosen, options.seeds)
    records = lines(options.out / "runs.jsonl")
    identities = [sample.identity for sample in load(options.data).query]
    sections = {"imagenet-losses": losses_table(records, identities)}
    if all(of_variant(records, name) for name in PAIRS_OF):
        sections["imagenet-pairs"] = pairs_table(records)
    if gradients := lines(options.out / "gradients.jsonl"):
        sections["imagenet-gradients"] = gradients_table(gradients)
    for name, text in sections.items():
        print(text, end="\n\n")
        if options.write:
            write_section(name, text, script="imagenet_losses")


def matching(patterns: Sequence[str]) -> list[str]:
    """Names of the variants that fit one of the patterns, and of those that they start from or are compared
    with, in the order in which they are run."""
    chosen: set[str] = set()
    for pattern in patterns:
        found = {name for name in variants() if fnmatch.fnmatchcase(name, pattern)}
        if not found:
            raise SystemExit(f"no row is called {pattern!r}; --list names them")
        chosen |= found
    chosen |= {other for name in chosen for other in (variants()[name].start, variants()[name].baseline)} - {
        ""
    }
    return [name for name in variants() if name in chosen]


def measure(data: CachedData, out: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Train what is asked for and not yet there, and look at the gradients where that is done."""
    file = out / "runs.jsonl"
    for seed in seeds:
        for name in names:
            variant = variants()[name]
            if seed not in variant.seeds or (name, seed) in {
                (line["name"], line["seed"]) for line in lines(file)
            }:
                continue
            training = Training(data, variant, seed, out)
            append(file, {"name": name, "seed": seed, **training.run()})
            if name in PROBED:
                torch.save(training.step.state_dict(), weights_file(out, name, seed))
            found = lines(file)[-1]
            print(f"{name}, {seed}: {found['mAP']:.1f}, {found['seconds']:.0f} s", flush=True)
    file = out / "gradients.jsonl"
    for name in PROBED:
        there = not name or weights_file(out, name, 0).exists()
        if there and name not in {line["name"] for line in lines(file)}:
            append(file, {"name": name, "losses": probe(data, name, 0, out)})


def losses_table(records: Sequence[Record], identities: Sequence[int]) -> str:
    """Scores and differences of all variants that were run."""
    rows = ["| loss | seeds | mAP | rank-1 | metric loss at the end | vs identity alone | p | vs TriHard |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    before = rows_before("imagenet-losses")
    for name, variant in variants().items():
        own = of_variant(records, name)
        if not own:
            rows += [before[name]] if name in before else []
            continue
        at_end = [record["at the end"].get("metric", np.nan) for record in own.values()]
        versus, p_value = difference(own, of_variant(records, variant.baseline), identities)
        rival = of_variant(records, variant.baseline.replace("identity", "identity + TriHard"))
        against, _ = difference(own, rival, identities) if variant.metric else ("", "")
        scores = [spread([record[key] for record in own.values()]) for key in ("mAP", "rank-1")]
        loss = "" if np.isnan(at_end[0]) else f"{np.mean(at_end):.2f}"
        rows.append(
            f"| {name} | {len(own)} | {scores[0]} | {scores[1]} | {loss} | {versus} | {p_value} | {against} |"
        )
    steps = next(iter(of_variant(records, "identity").values()), {"steps": 936})["steps"]
    return "\n".join(
        [
            *rows,
            "",
            "In percent, mean ± sample standard deviation over seeds. Batches of 16 x 4, "
            f"{steps} steps where nothing else is said, flips only, AdamW with one cycle (1e-3; 3e-4 from a "
            "checkpoint or without the identity loss; SGD 0.05), label smoothing 0.1, margin 0.3, metric "
            "losses on the pooled feature, of unit length. FC-1024: every loss reads one linear feature of "
            "1024 values, which is the embedding. MSML's paper: that, dropout of 0.5 before the classifier, "
            "and batches of 32 x 4. JLML's sparsity: l21 of that linear layer, weight 5e-4.",
            "",
            "Difference in mAP points to the same training with the identity loss alone (of ImageNet's "
            "features and of the four epochs: to the row `identity`), and to that with TriHard; on the same "
            "queries and seeds, with the 95 % interval over identities, and over seeds where there are "
            "several.",
            "",
            f"One thread of {processor()}, torch {torch.__version__}.",
        ]
    )


def difference(
    own: dict[int, Record], others: dict[int, Record], identities: Sequence[int]
) -> tuple[str, str]:
    """In mAP points with the interval, and its p-value; nothing between a variant and itself."""
    shared = [seed for seed in own if seed in others and own[seed] is not others[seed]]
    if not shared:
        return "", ""
    first, second = (
        np.array([found[seed]["average precisions"] for seed in shared]) for found in (others, own)
    )
    d = paired_difference(first, second, identities=identities)
    return in_points(d), "< 0.001" if d.p_value < 0.001 else f"{d.p_value:.3f}"


def pairs_table(records: Sequence[Record]) -> str:
    """Which images are in the pairs that MSML chooses, or would choose in a training with another loss."""
    rows = ["| loss | pairs | 1 % of the images | 5 % | the same 1 % with another seed |"]
    rows.append("|---|---|---|---|---|")
    for name in PAIRS_OF:
        own = of_variant(records, name)
        for kind in ("positive", "negative"):
            chosen = {seed: record["chosen"][kind] for seed, record in own.items()}
            shares = [
                [
                    100 * sum(times for _, times in chosen[seed][:num]) / (2 * own[seed]["steps"])
                    for seed in own
                ]
                for num in (75, 376)
            ]
            most = [{image for image, _ in found[:75]} for found in chosen.values()]
            again = [100 * len(a & b) / 75 for i, a in enumerate(most) for b in most[:i]]
            cells = [f"{np.mean(values):.0f} %" if values else "" for values in (*shares, again)]
            rows.append(f"| {name} | {kind} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *rows,
            "",
            "Share of all choices that fall on the images that are chosen most often; how many of these are "
            "so with another seed as well (1 % by chance). Pairs of one identity (positive) and of two "
            "(negative).",
        ]
    )


def gradients_table(records: Sequence[Record]) -> str:
    """How long the losses' gradients are, and how they agree from batch to batch, at several weights."""
    shown = [record["name"] or "ImageNet" for record in records]
    rows = ["| loss | " + " | ".join(f"{name}: norm | agreement" for name in shown) + " |"]
    rows.append("|---" * (1 + 2 * len(shown)) + "|")
    for loss in records[0]["losses"] if records else []:
        cells = [loss]
        for found in (record["losses"] for record in records):
            cells += [
                f"{found[loss]['norm'] / found['identity']['norm']:.2f}",
                f"{found[loss]['between batches']:.4f}",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            *rows,
            "",
            "Gradients by the trained layers' weights, of 40 batches, at the weights that ImageNet or a "
            "training left. Norm: in units of the identity loss's. Agreement: the mean cosine of the "
            "gradients of two batches; with c, about 1 / c batches have to be averaged until what they "
            "share is as long as the rest.",
        ]
    )


def of_variant(records: Sequence[Record], name: str) -> dict[int, Record]:
    """By seed."""
    return {record["seed"]: record for record in records if record["name"] == name}


def lines(file: Path) -> list[Record]:
    """Records of a file; what a call that was killed left of its last line is cut off."""
    if not file.exists():
        return []
    text = file.read_text("utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, "utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def append(file: Path, record: Record) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
