"""OSNet: published sizes and names, and one block against a second derivation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import reidkit as rk
from reidkit.models._cost import complexity, num_parameters
from reidkit.models.osnet import OSBlock
from reidkit.models.osnet_ain import AINBlock

WIDTHS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
}


@pytest.mark.parametrize(
    ("name", "millions", "mega_multiply_adds"),
    # Zhou et al. 2019, table 7, at 256 x 128.
    [
        ("osnet_x1_0", 2.2, 978.9),
        ("osnet_x0_75", 1.3, 571.8),
        ("osnet_x0_5", 0.6, 272.9),
        ("osnet_x0_25", 0.2, 82.3),
        ("osnet_ibn_x1_0", 2.2, 978.9),
        ("osnet_ain_x1_0", 2.2, 978.9),
    ],
)
def test_published_parameters_and_multiply_adds(name, millions, mega_multiply_adds):
    cost = complexity(rk.build_model(name), height=256, width=128)
    assert round(cost.num_parameters / 1e6, 1) == millions
    assert round(cost.num_multiply_adds / 1e6, 1) == mega_multiply_adds


@pytest.mark.parametrize("name", WIDTHS)
def test_shapes_of_the_stages(name):
    widths = WIDTHS[name]
    backbone = rk.build_model(name).backbone.eval()
    x, shapes = torch.zeros(1, 3, 256, 128), []
    with torch.no_grad():
        for stage in ("conv1", "maxpool", "conv2", "conv3", "conv4", "conv5"):
            x = backbone.get_submodule(stage)(x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [
        (widths[0], 128, 64),
        (widths[0], 64, 32),
        (widths[1], 32, 16),
        (widths[2], 16, 8),
        (widths[3], 16, 8),
        (widths[3], 16, 8),
    ]


def norm_names(name, width, *, running=True):
    names = {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    if running:
        names |= {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
        names |= {f"{name}.num_batches_tracked": ()}
    return names


def conv_names(name, num_in, num_out, size=1, *, running=True):
    return {f"{name}.conv.weight": (num_out, num_in, size, size)} | norm_names(
        f"{name}.bn", num_out, running=running
    )


def light_names(name, width):
    return {
        f"{name}.conv1.weight": (width, width, 1, 1),
        f"{name}.conv2.weight": (width, 1, 3, 3),
        **norm_names(f"{name}.bn", width),
    }


def block_names(name, num_in, num_out, *, streams):
    width = num_out // 4
    names = conv_names(f"{name}.conv1", num_in, width)
    for stream in streams:
        names |= light_names(f"{name}.{stream}", width)
    names |= {f"{name}.gate.fc1.weight": (width // 16, width, 1, 1), f"{name}.gate.fc1.bias": (width // 16,)}
    names |= {f"{name}.gate.fc2.weight": (width, width // 16, 1, 1), f"{name}.gate.fc2.bias": (width,)}
    names |= conv_names(f"{name}.conv3", width, num_out)
    if num_in != num_out:
        names |= conv_names(f"{name}.downsample", num_in, num_out)
    return names


FLAT_STREAMS = ["conv2a", *(f"conv2{letter}.{i}" for n, letter in enumerate("bcd", 2) for i in range(n))]
LISTED_STREAMS = [f"conv2.{t}.layers.{i}" for t in range(4) for i in range(t + 1)]


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


@pytest.mark.parametrize("name", [*WIDTHS, "osnet_ibn_x1_0"])
def test_names_and_shapes_are_those_of_torchreids_files(name):
    widths = WIDTHS.get(name, WIDTHS["osnet_x1_0"])
    ibn = name == "osnet_ibn_x1_0"
    expected = conv_names("conv1", 3, widths[0], 7, running=not ibn)
    for number in (2, 3, 4):
        num_in, num_out = widths[number - 2], widths[number - 1]
        for block in (0, 1):
            expected |= block_names(
                f"conv{number}.{block}", num_out if block else num_in, num_out, streams=FLAT_STREAMS
            )
            if ibn and number == 2:
                expected |= norm_names(f"conv{number}.{block}.IN", num_out, running=False)
        if number != 4:
            expected |= conv_names(f"conv{number}.2.0", num_out, num_out)
    expected |= conv_names("conv5", widths[3], widths[3])
    model = rk.build_model(name)
    assert shapes_of(model.backbone) == expected
    # fc.0 and fc.1 there
    assert shapes_of(model.neck) == {
        "0.weight": (512, widths[3]),
        "0.bias": (512,),
        **norm_names("1", 512),
    }


def test_names_and_shapes_of_ain_are_those_of_torchreids_files():
    expected = conv_names("conv1", 3, 64, 7, running=False)
    normalised = {"conv2.0", "conv2.1", "conv3.1", "conv4.0"}
    widths = (64, 256, 384, 512)
    for number in (2, 3, 4):
        num_in, num_out = widths[number - 2], widths[number - 1]
        for block in (0, 1):
            name = f"conv{number}.{block}"
            names = block_names(name, num_out if block else num_in, num_out, streams=LISTED_STREAMS)
            if name in normalised:
                names = {key: shape for key, shape in names.items() if ".conv3.bn." not in key}
                names |= norm_names(f"{name}.IN", num_out, running=False)
            expected |= names
        if number != 4:
            expected |= conv_names(f"pool{number}.0", num_out, num_out)
    expected |= conv_names("conv5", 512, 512)
    assert shapes_of(rk.build_model("osnet_ain_x1_0").backbone) == expected


def randomize(module):
    """Weights, and statistics of batch norm, as training would leave them: none 0 or 1."""
    torch.manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.normal_(0.0, 0.3)
    return module.eval()


def batch_norm(x, weights, name):
    """Channel by channel."""
    channels = []
    for c in range(x.shape[1]):
        mean, variance = weights[f"{name}.running_mean"][c], weights[f"{name}.running_var"][c]
        scale, shift = weights[f"{name}.weight"][c], weights[f"{name}.bias"][c]
        channels.append((x[:, c] - mean) / (variance + 1e-5).sqrt() * scale + shift)
    return torch.stack(channels, dim=1)


def instance_norm(x, weights, name):
    """Image by image, channel by channel."""
    result = torch.empty_like(x)
    for b in range(x.shape[0]):
        for c in range(x.shape[1]):
            values = x[b, c]
            unit = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            result[b, c] = unit * weights[f"{name}.weight"][c] + weights[f"{name}.bias"][c]
    return result


def pointwise(x, weight):
    """A 1x1 convolution is a matrix product at every place."""
    return torch.einsum("bchw,oc->bohw", x, weight[:, :, 0, 0])


def depthwise(x, weight):
    """Each output is the sum of nine shifted inputs of the same channel."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    total = torch.zeros_like(x)
    for dy in range(3):
        for dx in range(3):
            for c in range(x.shape[1]):
                total[:, c] += weight[c, 0, dy, dx] * padded[:, c, dy : dy + height, dx : dx + width]
    return total


def gate(x, weights):
    means = x.flatten(2).mean(dim=2)
    hidden = means @ weights["gate.fc1.weight"][:, :, 0, 0].T + weights["gate.fc1.bias"]
    scores = hidden.clamp(min=0) @ weights["gate.fc2.weight"][:, :, 0, 0].T + weights["gate.fc2.bias"]
    return x * (1 / (1 + torch.exp(-scores)))[:, :, None, None]


def block_by_hand(x, weights, *, streams, norm):
    """Section 3 of the paper: x + 1x1( sum over t of gate( t light convolutions of 1x1(x) ) )."""
    reduced = batch_norm(pointwise(x, weights["conv1.conv.weight"]), weights, "conv1.bn").clamp(min=0)
    total = torch.zeros_like(reduced)
    for stream in streams:
        y = reduced
        for layer in stream:
            y = depthwise(pointwise(y, weights[f"{layer}.conv1.weight"]), weights[f"{layer}.conv2.weight"])
            y = batch_norm(y, weights, f"{layer}.bn").clamp(min=0)
        total += gate(y, weights)
    residual = pointwise(total, weights["conv3.conv.weight"])
    if norm != "inside":
        residual = batch_norm(residual, weights, "conv3.bn")
    else:
        residual = instance_norm(residual, weights, "IN")
    if "downsample.conv.weight" in weights:
        x = batch_norm(pointwise(x, weights["downsample.conv.weight"]), weights, "downsample.bn")
    x = x + residual
    if norm == "outside":
        x = instance_norm(x, weights, "IN")
    return x.clamp(min=0)


STREAMS = (
    ["conv2a"],
    ["conv2b.0", "conv2b.1"],
    ["conv2c.0", "conv2c.1", "conv2c.2"],
    ["conv2d.0", "conv2d.1", "conv2d.2", "conv2d.3"],
)
AIN_STREAMS = tuple([f"conv2.{t}.layers.{i}" for i in range(t + 1)] for t in range(4))


@pytest.mark.parametrize(
    ("block", "streams", "norm"),
    [
        (OSBlock(16, 64), STREAMS, "none"),
        (OSBlock(64, 64), STREAMS, "none"),
        (OSBlock(16, 64, instance_norm=True), STREAMS, "outside"),
        (AINBlock(64, 64), AIN_STREAMS, "none"),
        (AINBlock(16, 64, instance_norm=True), AIN_STREAMS, "inside"),
    ],
    ids=["widening", "same width", "ibn", "ain without", "ain with"],
)
def test_a_block_is_what_the_paper_says(block, streams, norm):
    block = randomize(block)
    num_in = block.conv1.conv.in_channels
    x = torch.randn(2, num_in, 6, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = block_by_hand(x, block.state_dict(), streams=streams, norm=norm)
        torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.05


def test_the_neck_is_the_papers_unless_another_is_asked_for():
    model = rk.build_model("osnet_x0_25")
    assert model.features == {"pooled": 128, "neck": 512}
    assert model.metric_feature == model.classification_feature == model.embedding_feature == "neck"
    other = rk.build_model("osnet_x0_25", neck="bnneck", pooling="gem")
    assert other.features == {"pooled": 128, "neck": 128}
    assert num_parameters(other) == num_parameters(other.backbone) + 1 + 2 * 128
