"""Names and shapes of published weights, as the toolkits' own code documents them. Values are made up."""

from itertools import pairwise

import timm
import torch
import torchvision


def batch_norm(name, width):
    affine = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**affine, f"{name}.num_batches_tracked": ()}


def resnet50(prefix=""):
    """torchvision's names, which all toolkits keep."""
    state = torchvision.models.resnet50(weights=None).state_dict()
    return {prefix + name: tuple(value.shape) for name, value in state.items() if not name.startswith("fc.")}


def conv1x1(name, inputs, outputs):
    return {f"{name}.conv.weight": (outputs, inputs, 1, 1), **batch_norm(f"{name}.bn", outputs)}


def light_conv(name, width):
    depthwise = {f"{name}.conv1.weight": (width, width, 1, 1), f"{name}.conv2.weight": (width, 1, 3, 3)}
    return depthwise | batch_norm(f"{name}.bn", width)


def instance_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def osnet_block(at, inputs, width, streams):
    middle = width // 4
    names = conv1x1(f"{at}.conv1", inputs, middle) | conv1x1(f"{at}.conv3", middle, width)
    for stream in streams:
        names |= light_conv(f"{at}.{stream}", middle)
    for fc, shape in (("fc1", (middle // 16, middle, 1, 1)), ("fc2", (middle, middle // 16, 1, 1))):
        names |= {f"{at}.gate.{fc}.weight": shape, f"{at}.gate.{fc}.bias": shape[:1]}
    return names | (conv1x1(f"{at}.downsample", inputs, width) if inputs != width else {})


def osnet_ends(channels):
    """First convolution, last convolution, feature layer and classifier."""
    first = {"conv1.conv.weight": (channels[0], 3, 7, 7), **batch_norm("conv1.bn", channels[0])}
    feature = {"fc.0.weight": (512, channels[-1]), "fc.0.bias": (512,), **batch_norm("fc.1", 512)}
    classifier = {"classifier.weight": (751, 512), "classifier.bias": (751,)}
    return first | conv1x1("conv5", channels[-1], channels[-1]) | feature | classifier


def with_instance_norm_first(names):
    names = {name: shape for name, shape in names.items() if not name.startswith("conv1.bn")}
    return names | instance_norm("conv1.bn", 64)


def torchreid_osnet(*channels, ibn=False):
    """Zhou et al. 2019, table 1; names of Torchreid's osnet.py."""
    streams = ["conv2a"]
    streams += [f"conv2{name}.{i}" for name, depth in (("b", 2), ("c", 3), ("d", 4)) for i in range(depth)]
    names = osnet_ends(channels)
    for stage, (before, width) in enumerate(pairwise(channels), start=2):
        names |= osnet_block(f"conv{stage}.0", before, width, streams)
        names |= osnet_block(f"conv{stage}.1", width, width, streams)
        if stage < 4:
            names |= conv1x1(f"conv{stage}.2.0", width, width)
    if ibn:
        names = with_instance_norm_first(names)
        names |= instance_norm("conv2.0.IN", 256) | instance_norm("conv2.1.IN", 256)
    return names


def torchreid_osnet_ain():
    """Zhou et al. 2021; names of Torchreid's osnet_ain.py."""
    channels = (64, 256, 384, 512)
    streams = [f"conv2.{t}.layers.{i}" for t in range(4) for i in range(t + 1)]
    names = with_instance_norm_first(osnet_ends(channels))
    for stage, (before, width) in enumerate(pairwise(channels), start=2):
        names |= osnet_block(f"conv{stage}.0", before, width, streams)
        names |= osnet_block(f"conv{stage}.1", width, width, streams)
        if stage < 4:
            names |= conv1x1(f"pool{stage}.0", width, width)
    for at, width in (("conv2.0", 256), ("conv2.1", 256), ("conv3.1", 384), ("conv4.0", 512)):
        names = {name: shape for name, shape in names.items() if not name.startswith(f"{at}.conv3.bn")}
        names |= instance_norm(f"{at}.IN", width)
    return names


def resnet50_ibn_a(prefix=""):
    """Pan et al. 2018: the first norm of each block of stages 1 to 3 is half instance, half batch norm."""
    names = {}
    for name, shape in resnet50(prefix).items():
        at, _, part = name.rpartition(".")
        if "bn1" not in at or "layer4" in at or "layer" not in at:
            names[name] = shape
        elif part == "weight":
            names |= instance_norm(f"{at}.IN", shape[0] // 2) | batch_norm(f"{at}.BN", shape[0] // 2)
    return names


def made_up(shapes):
    """A number of its own for each name: of whatever shape, a file holds it once."""
    generator = torch.Generator().manual_seed(0)
    return {name: (torch.rand((), generator=generator) + 0.5).expand(shape) for name, shape in shapes.items()}


def non_local(at, width):
    """FastReID's non_local.py."""
    names = batch_norm(f"{at}.W.1", width) | {
        f"{at}.W.0.weight": (width, 1, 1, 1),
        f"{at}.W.0.bias": (width,),
    }
    for layer in ("g", "theta", "phi"):
        names |= {f"{at}.{layer}.weight": (1, width, 1, 1), f"{at}.{layer}.bias": (1,)}
    return names


def fastreid(*, with_non_local=False, power=False):
    """A ResNet50 of FastReID: Base-bagtricks.yml; non-local blocks make AGW of it, and a power SBS."""
    names = resnet50("backbone.") | batch_norm("heads.bottleneck.0", 2048) | {"heads.weight": (751, 2048)}
    for stage, count, width in ((2, 2, 512), (3, 3, 1024)) if with_non_local else ():
        for i in range(count):
            names |= non_local(f"backbone.NL_{stage}.{i}", width)
    return names | ({"heads.pool_layer.p": (1,)} if power else {})


def transreid(architecture, *, size, grid, jigsaw=False, cameras=0):
    """TransReID's make_model.py and vit_pytorch.py, with a transformer that timm has as well.

    ``size`` and ``grid`` are (rows, columns), of pixels and of patches.
    """
    network = timm.create_model(architecture, num_classes=0, img_size=size)
    width, last = network.embed_dim, f"base.blocks.{len(network.blocks) - 1}."
    names = {f"base.{name}": tuple(value.shape) for name, value in network.state_dict().items()}
    names["base.pos_embed"] = (1, 1 + grid[0] * grid[1], width)
    names |= {"base.fc.weight": (1000, width), "base.fc.bias": (1000,), "classifier.weight": (751, width)}
    names |= batch_norm("bottleneck", width)
    if cameras:
        names["base.sie_embed"] = (cameras, 1, width)
    if jigsaw:
        block = {name: shape for name, shape in names.items() if name.startswith(last)}
        for branch in ("b1", "b2"):
            names |= {name.replace(last, f"{branch}.0."): shape for name, shape in block.items()}
            names |= {f"{branch}.1.weight": (width,), f"{branch}.1.bias": (width,)}
        for i in range(1, 5):
            names |= batch_norm(f"bottleneck_{i}", width) | {f"classifier_{i}.weight": (751, width)}
    return names


def layer_norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def solider(depths, *, fine_tuned):
    """SOLIDER's swin_transformer.py, of width 96; the names of make_model.py where it was fine-tuned.

    Pre-trained it is the teacher of DINO, with a head of its own.
    """
    at = "base" if fine_tuned else "backbone"
    names = {f"{at}.patch_embed.projection.weight": (96, 3, 4, 4), f"{at}.patch_embed.projection.bias": (96,)}
    names |= layer_norm(f"{at}.patch_embed.norm", 96)
    for stage, depth in enumerate(depths):
        width, heads = 96 * 2**stage, 3 * 2**stage
        for i in range(depth):
            block = f"{at}.stages.{stage}.blocks.{i}"
            names |= layer_norm(f"{block}.norm1", width) | layer_norm(f"{block}.norm2", width)
            names[f"{block}.attn.w_msa.relative_position_bias_table"] = (169, heads)
            names[f"{block}.attn.w_msa.relative_position_index"] = (49, 49)
            names |= linear(f"{block}.attn.w_msa.qkv", width, 3 * width)
            names |= linear(f"{block}.attn.w_msa.proj", width, width)
            names |= linear(f"{block}.ffn.layers.0.0", width, 4 * width)
            names |= linear(f"{block}.ffn.layers.1", 4 * width, width)
        if stage < 3:
            names |= layer_norm(f"{at}.stages.{stage}.downsample.norm", 4 * width)
            names[f"{at}.stages.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
        names |= layer_norm(f"{at}.norm{stage}", width)
        for controller in ("semantic_embed_w", "semantic_embed_b"):
            names |= linear(f"{at}.{controller}.{stage}", 2, min(2 * width, 768))
    if fine_tuned:
        return names | batch_norm("bottleneck", 768) | {"classifier.weight": (751, 768)}
    return names | linear("head.mlp.0", 768, 2048) | linear("head.mlp.2", 2048, 2048)
