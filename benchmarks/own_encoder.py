"""The encoder that ships with the package, `reidkit-small`: made from drawn people, scored on real ones.

    python benchmarks/own_encoder.py make FOLDER              # draws, trains, fits: hours of one core
    python benchmarks/own_encoder.py make FOLDER --small      # the same with few people, in minutes
    python benchmarks/own_encoder.py score $REIDKIT_DATA [--encoder FILE] [--write]

`make` leaves FOLDER/reidkit-small.safetensors, which is copied to src/reidkit/encoders/weights/. Stopped and
started again, it goes on: who is drawn already is not drawn again, a training goes on from its checkpoint,
and one that has ended is left alone. `--small` makes FOLDER/small/reidkit-small.safetensors, which is of no
use, and shows that all steps run.

`score` compares it with histograms of colours, with ImageNet's features and with a published network, on
people that none of them learned from, as far as that is known.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.vq import kmeans2
from scipy.linalg import eigh

import reidkit as rk
from reidkit.encoders.encoder_file import load_encoder_file, save_weights
from reidkit.evaluation import evaluate_features
from reidkit.evaluation.features import label_features
from reidkit.images.reading import load_image
from reidkit.images.transforms import normalize, resized
from reidkit.models import build_model
from reidkit.models.mobilenet_colour import MobileNetColour
from reidkit.types import Evaluation, Features, Split
from results import processor, write_section
from varied_people import HEIGHT, WIDTH, draw


class Size(NamedTuple):
    """How much is made.

    Attributes:
        first, trained, fitted: numbers of the drawn people: of a first, short training; of the training; of
            palette and projections.
        epochs: of the two trainings.
    """

    first: range
    trained: range
    fitted: range
    epochs: tuple[int, int]


FULL = Size(range(337), range(1200), range(2000, 2400), (4, 3))
SMALL = Size(range(16), range(20), range(2000, 2016), (1, 1))

SHARED = (
    "loss.metric.kind=trihard",  # with which the one in the package was made
    "loss.metric.margin=0.3",
    "sampler.spread_cameras=true",
    "transform.erasing=0.3",
    "transform.jitter=0.15",
    "train.cache=ram",
    "train.num_workers=0",
)
TRAININGS = (("optim.lr=5e-4", "optim.layer_decay=0.85"), ("optim.lr=6e-4", "optim.layer_decay=0.87"))
TEMPERATURE = 0.005  # of the softmax that shares a pixel among the colours, squared units of `opponent`
CONTRAST = 0.22  # standard deviation that pixels have in these units
SHRINKAGE = 1.0  # of the scatter within people, in parts of its mean eigenvalue
BATCH = 64

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Embedding = Callable[[Split], NDArray[Any]]
RETAIL = "person-reidentification-retail-0288"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder", type=Path, help="where drawings and runs go")
    making.add_argument("--small", action="store_true", help="few people, one epoch: to see that it runs")
    scoring = commands.add_parser("score")
    scoring.add_argument("data", type=Path, help="folder with market1501-500/, viper/ and models/")
    scoring.add_argument("--encoder", default="reidkit-small", help="another file in its place")
    scoring.add_argument("--write", action="store_true", help="write the table into docs/results.md")
    options = parser.parse_args()
    if options.command == "make":
        print(make(options.folder / "small", SMALL) if options.small else make(options.folder, FULL))
        return
    table = score(options.data, options.encoder)
    print(table)
    if options.write:
        write_section("own-encoder", table)


# --- making ---------------------------------------------------------------------------------------------


def make(folder: Path, size: Size) -> Path:
    """Draw, train and fit; the encoder's file."""
    first, people = draw(folder / "first", size.first), draw(folder / "people", size.trained)
    held_out = draw(folder / "held-out", size.fitted)
    of_first, of_all = ((f"train.epochs={n}", *more) for n, more in zip(size.epochs, TRAININGS, strict=True))
    train(first, folder / "run-first", of_first)
    train(people, folder / "run", (f"train.init={folder / 'run-first'}", *of_all))
    return fit(folder / "run", held_out, folder / "reidkit-small.safetensors")


def train(people: Path, run: Path, overrides: tuple[str, ...]) -> None:
    """`reid train small-strong`, which goes on where it stopped."""
    command = ["reidkit", "train", "small-strong", f"data.root={people}", *SHARED, *overrides]
    subprocess.run([sys.executable, "-m", *command, "--out", str(run)], check=True)


@torch.inference_mode()
def fit(run: Path, held_out: Path, file: Path) -> Path:
    """Join the trained network with colours, both fitted to drawn people that it did not learn from."""
    torch.set_num_threads(1)  # so that sums are added in the same order everywhere
    split = rk.load_dataset("market1501", held_out).train
    pixels, identities = read(split), np.array([sample.identity for sample in split])
    model = build_model("mobilenet_colour")
    assert isinstance(model, MobileNetColour)
    trained, _ = load_encoder_file(run / "last.safetensors")
    model.network.load_state_dict(trained.state_dict())
    in_float16(model.network)
    model.eval()
    fit_palette(model, pixels)
    fit_projections(model, pixels, identities)
    in_float16(model)
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor
               for name, tensor in model.state_dict().items()}  # fmt: skip
    save_weights(
        file,
        tensors,
        {
            "model": {"name": "mobilenet_colour"},
            "transform": {"height": HEIGHT, "width": WIDTH},
            "card": {"data": {"name": "drawn people"}, "recipe": "small-strong", "reidkit": rk.__version__},
        },
    )
    return file


def in_float16(model: torch.nn.Module) -> None:
    """Round the weights as the file will, so that what follows is fitted to what will be."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())


def read(split: Split) -> Pixels:
    """The images as the network gets them, (N, height, width, 3)."""
    return np.stack([resized(load_image(sample.path), height=HEIGHT, width=WIDTH) for sample in split])


def batches(model: MobileNetColour, pixels: Pixels) -> Iterator[torch.Tensor]:
    for start in range(0, len(pixels), BATCH):
        batch = torch.from_numpy(pixels[start : start + BATCH]).permute(0, 3, 1, 2)
        yield normalize(batch, model.mean, model.std)


def fit_palette(model: MobileNetColour, pixels: Pixels) -> None:
    """Colours by k-means over pixels of every tenth image, in brightness and two differences of channels."""
    opponent = CONTRAST * torch.tensor([[0.299, 0.587, 0.114], [1.6, -1.6, 0], [-0.8, -0.8, 1.6]])
    evened = torch.cat([model.colour.evened(batch) for batch in batches(model, pixels[::10])])
    values = torch.einsum("oc,nchw->nhwo", opponent, evened).reshape(-1, 3).numpy()
    some = np.random.default_rng(0).permutation(len(values))[:20_000]
    palette = model.colour.palette
    colours, _ = kmeans2(values[some], palette.out_channels, seed=0, minit="++")
    found = torch.from_numpy(colours).float()
    palette.weight.copy_((2 * found @ opponent / TEMPERATURE)[..., None, None])
    palette.bias.copy_(-found.square().sum(dim=1) / TEMPERATURE)


def fit_projections(model: MobileNetColour, pixels: Pixels, identities: NDArray[np.int64]) -> None:
    features = [model.named_features(batch) for batch in batches(model, pixels)]
    for name, projection in (("neck", model.to_shape), ("colour", model.to_hue)):
        values = torch.cat([F.normalize(found[name], dim=1) for found in features])
        mean, weight = discriminants(values.double().numpy(), identities, projection.out_features)
        projection.weight.copy_(torch.from_numpy(weight))
        projection.bias.copy_(torch.from_numpy(-weight @ mean))


def discriminants(values: Floats, identities: NDArray[np.int64], num: int) -> tuple[Floats, Floats]:
    """Fisher's: directions in which people differ most for how much each of them varies.

    Of values (N, D) their mean (D,), and the directions (num, D), each with a scatter of 1 within people.
    """
    mean = values.mean(axis=0)
    values = values - mean
    _, people = np.unique(identities, return_inverse=True)
    means = np.stack([values[people == person].mean(axis=0) for person in range(people.max() + 1)])
    within = np.cov((values - means[people]).T)
    within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    _, directions = eigh(np.cov(means.T), within)  # the best come last
    return mean, np.ascontiguousarray(directions.T[::-1][:num])


# --- scoring --------------------------------------------------------------------------------------------


def score(data: Path, encoder: str) -> str:
    """The table: mAP and rank-1 of each way to embed, on people that nobody here learned from."""
    market = rk.load_dataset("market1501", data / "market1501-500")
    development = rk.load_dataset("market1501", data / "market1501-500", val_identities=100)
    viper = rk.load_dataset("viper", data / "viper")
    published = data / "models" / RETAIL / f"{RETAIL}.xml"
    ways: dict[str, Embedding] = {
        "histograms of hue, saturation and value in 6 stripes, by hand": histograms,
        "MobileNetV2, ImageNet's features as they are": imagenet_features(),
        "`reidkit-small`": of_encoder(encoder),
        "the half of it that MobileNetV2 gives": of_encoder(encoder, "shape"),
        "the half of it that colours give": of_encoder(encoder, "hue"),
        f"{RETAIL}, which learned from real people": of_encoder(published),
    }
    lines = [
        "| embedding | values | Market-1501, 100 for development | Market-1501, 100 others | VIPeR, 316 |",
        "|---|---|---|---|---|",
    ]
    for name, embed in ways.items():
        found = [
            evaluate_features(labelled(embed, development.val)),
            evaluate_features(labelled(embed, market.query), labelled(embed, market.gallery)),
            evaluate_features(
                labelled(embed, viper.query),
                labelled(embed, viper.gallery),
                protocol="single_gallery_shot",
                camera_filter="other_cameras",
            ),
        ]
        width = embed(market.query[:1]).shape[1]
        lines.append(f"| {name} | {width} | {' | '.join(map(cell, found))} |")
    notes = (
        f"mAP / rank-1 in percent. VIPeR: the test people of split 0, both cameras ask. {processor()}, "
        f"torch {torch.__version__}."
    )
    return "\n".join([*lines, "", notes])


def labelled(embed: Embedding, split: Split) -> Features:
    return label_features(unit(embed(split)), split)


def cell(result: Evaluation) -> str:
    return f"{100 * result.mean_average_precision:.1f} / {100 * result.cmc[0]:.1f}"


def unit(values: NDArray[Any]) -> NDArray[np.float32]:
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def of_encoder(encoder: str | Path, feature: str | None = None) -> Embedding:
    return lambda split: np.asarray(rk.load_encoder(encoder, feature=feature).encode(split))


def imagenet_features() -> Embedding:
    model = build_model("timm:mobilenetv2_100", pretrained="package:mobilenetv2", last_stride=1)
    encoder = rk.Encoder(model, height=HEIGHT, width=WIDTH, feature="pooled")
    return lambda split: np.asarray(encoder.encode(split))


def histograms(split: Split) -> NDArray[Any]:
    """Roots of 8 x 4 x 4 bins in six stripes, pixels in the middle counting more, (N, 768)."""
    middle = np.exp(-(((np.arange(WIDTH) - WIDTH / 2 + 0.5) / (WIDTH / 4)) ** 2) / 2)
    rows = []
    for image in read(split):
        hsv = np.asarray(Image.fromarray(image).convert("HSV")).astype(int)
        bins = (hsv[..., 0] // 32 * 4 + hsv[..., 1] // 64) * 4 + hsv[..., 2] // 64
        stripes = np.array_split(bins, 6)
        weights = [np.broadcast_to(middle, stripe.shape) for stripe in stripes]
        counts = [
            np.bincount(stripe.ravel(), weight.ravel(), minlength=128)
            for stripe, weight in zip(stripes, weights, strict=True)
        ]
        rows.append(np.concatenate([np.sqrt(count / count.sum()) for count in counts]))
    return np.array(rows)


if __name__ == "__main__":
    main()
