"""ResNet50-X, ResNet50-IBN-a, BN-Inception and timm's networks: their layers, names and sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.models.bninception import _halve
from reidkit.models.resnet50_ibn_a import InstanceBatchNorm


def shapes_of(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def resnet50_names():
    return shapes_of(rk.build_model("resnet50").backbone)


def test_resnet50x_has_a_cell_for_each_3x3_convolution_and_is_otherwise_resnet50():
    expected = resnet50_names()
    cells = [name for name in expected if name.endswith("conv2.weight")]
    assert len(cells) == 16
    for name in cells:
        num_out, num_in, *_ = expected.pop(name)
        expected[name.replace(".weight", ".0.weight")] = (num_in, 1, 3, 3)
        expected[name.replace(".weight", ".1.weight")] = (num_out, num_in, 1, 1)
    assert shapes_of(rk.build_model("resnet50x").backbone) == expected


@pytest.mark.parametrize("name", ["resnet50x", "resnet50_ibn_a"])
@pytest.mark.parametrize(("last_stride", "size"), [(1, (4, 2)), (2, (2, 1))])
def test_last_stride_holds_for_variants_of_resnet50(name, last_stride, size):
    backbone = rk.build_model(name, last_stride=last_stride).backbone.eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 64, 32)).shape == (1, 2048, *size)


def test_resnet50_ibn_a_has_the_names_of_the_authors_weights():
    expected = resnet50_names()
    blocks = [f"layer{stage}.{i}" for stage, count in ((1, 3), (2, 4), (3, 6)) for i in range(count)]
    for block in blocks:
        (width,) = expected.pop(f"{block}.bn1.weight")
        for part in ("bias", "running_mean", "running_var", "num_batches_tracked"):
            expected.pop(f"{block}.bn1.{part}")
        half = (width // 2,)
        expected |= {f"{block}.bn1.IN.{part}": half for part in ("weight", "bias")}
        expected |= {
            f"{block}.bn1.BN.{part}": half for part in ("weight", "bias", "running_mean", "running_var")
        }
        expected[f"{block}.bn1.BN.num_batches_tracked"] = ()
    assert shapes_of(rk.build_model("resnet50_ibn_a").backbone) == expected


def test_half_of_the_channels_are_normalised_within_the_image():
    norm = InstanceBatchNorm(6).eval()
    x = 3 * torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0)) + 1
    y = norm(x)
    for image in range(2):
        for channel in range(3):
            values = x[image, channel]
            expected = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(y[image, channel], expected)
    torch.testing.assert_close(y[:, 3:], x[:, 3:] / (1 + 1e-5) ** 0.5)


def test_bninception_gives_the_maps_of_its_table():
    backbone = rk.build_model("bninception").backbone.eval()
    shapes, block = [], backbone._convolve_block

    def recorded(name, x):
        y = block(name, x)
        shapes.append((name, *y.shape[1:]))
        return y

    backbone._convolve_block = recorded
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 224, 224))
    assert shapes == [
        ("3a", 256, 28, 28),
        ("3b", 320, 28, 28),
        ("3c", 576, 14, 14),
        ("4a", 576, 14, 14),
        ("4b", 576, 14, 14),
        ("4c", 608, 14, 14),
        ("4d", 608, 14, 14),
        ("4e", 1056, 7, 7),
        ("5a", 1024, 7, 7),
        ("5b", 1024, 7, 7),
    ]


def test_bninception_has_the_size_and_names_of_the_public_weights():
    model = rk.build_model("bninception")
    shapes = shapes_of(model.backbone)
    classifier = 1000 * 1024 + 1000
    parameters = sum(p.numel() for p in model.backbone.parameters())
    assert parameters + classifier == 11_295_240  # of the Caffe model and its port
    assert len([name for name in shapes if name.endswith("_bn.weight")]) == 69
    known = {
        "conv1_7x7_s2.weight": (64, 3, 7, 7),
        "conv1_7x7_s2.bias": (64,),
        "conv2_3x3_reduce_bn.running_mean": (64,),
        "conv2_3x3.weight": (192, 64, 3, 3),
        "inception_3a_1x1.weight": (64, 192, 1, 1),
        "inception_3a_double_3x3_2.weight": (96, 96, 3, 3),
        "inception_3a_pool_proj.weight": (32, 192, 1, 1),
        "inception_3c_3x3.weight": (160, 128, 3, 3),
        "inception_4c_3x3_reduce.weight": (128, 576, 1, 1),
        "inception_4d_double_3x3_reduce.weight": (160, 608, 1, 1),
        "inception_4e_double_3x3_1.weight": (256, 192, 3, 3),
        "inception_5a_3x3.weight": (320, 192, 3, 3),
        "inception_5b_double_3x3_reduce.weight": (192, 1024, 1, 1),
        "inception_5b_pool_proj_bn.bias": (128,),
    }
    assert {name: shapes.get(name) for name in known} == known
    assert "inception_3c_1x1.weight" not in shapes
    assert "inception_4e_pool_proj.weight" not in shapes


@pytest.mark.parametrize("size", [2, 5, 6, 7, 14])
def test_halving_a_map_is_the_originals_pooling_and_rounds_odd_sizes_up(size):
    feature_map = torch.rand(1, 2, size, size, generator=torch.Generator().manual_seed(0))
    halved = _halve(feature_map)
    assert halved.shape[2:] == ((size + 1) // 2, (size + 1) // 2)
    if size % 2 == 0:
        original = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        assert torch.equal(halved, original(feature_map))
    for row in range(halved.shape[2]):
        for column in range(halved.shape[3]):
            window = feature_map[0, 1, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            assert halved[0, 1, row, column] == window.max()


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:swin_tiny_patch4_window7_224"])
def test_a_transformer_is_built_for_the_size_of_the_images(name):
    model = rk.build_model(name, image_size=[64, 32]).eval()
    assert model.image_size == (64, 32)
    assert rk.build_model(name).image_size in ((160, 160), (224, 224)), "timm's own where none is given"
    with torch.no_grad():
        assert model.embed(torch.zeros(1, 3, 64, 32)).shape == (1, model.embedding_dim)
    with pytest.raises(ConfigError, match=r"images are 32 x 64 .* built for 64 x 32 only"):
        model(torch.zeros(1, 3, 32, 64))


def test_pixels_reach_the_patches_of_their_place():
    """Rows and columns are not exchanged on the way into a network of a size that is not square."""
    torch.manual_seed(0)
    model = rk.build_model("timm:test_vit", image_size=[64, 32]).eval()
    assert model.backbone.network.patch_embed.grid_size == (4, 2)
    with torch.no_grad():
        assert model.backbone(torch.zeros(1, 3, 64, 32)).shape == (1, 64, 4, 2)


@pytest.mark.parametrize(
    ("name", "image_size", "problem"),
    [
        ("timm:test_resnet", [64, 32], "timm:test_resnet takes images of any size; leave image_size out"),
        (
            "timm:test_vit",
            [60, 32],
            r"image_size = \[60, 32\] does not divide into timm:test_vit's patches of 16",
        ),
        ("timm:test_vit", [64], r"image_size = \[64\] is not \[height, width\]"),
        ("timm:test_vit", [64, 0], r"image_size = \[64, 0\] is not \[height, width\]"),
    ],
)
def test_impossible_image_sizes(name, image_size, problem):
    with pytest.raises(ConfigError, match=problem):
        rk.build_model(name, image_size=image_size)


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("timm:test_resnet", 17),
        ("timm:convnext_atto", 32),
        ("timm:mobilenetv3_small_050", 17),
        ("resnet18", 9),
    ],
)
def test_the_smallest_image_depends_on_how_a_network_pads(name, smallest):
    assert rk.build_model(name).smallest_side == smallest


def test_finding_the_smallest_image_leaves_a_new_network_as_it_was():
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet")
    assert model.training
    assert all(module.training for module in model.modules())
    assert {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0}
