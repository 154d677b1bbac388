"""SOLIDER's Swin: timm's where windows fit, a loop over patches where they do not, and its controller."""

import pytest
import timm
import torch
import torch.nn.functional as F

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.models.solider_swin import ShiftedWindows, SoliderSwin

_TO_TIMM = [
    ("stages.", "layers."),
    (".w_msa.", "."),
    ("ffn.layers.0.0.", "mlp.fc1."),
    ("ffn.layers.1.", "mlp.fc2."),
    ("projection.", "proj."),
    ("norm3.", "norm."),
]


def for_timm(weights):
    """The same under timm's names; of four merged patches timm has the columns first, channels last."""
    renamed = {}
    for name, value in weights.items():
        if name.startswith("semantic"):
            continue
        if "downsample" in name:
            at = int(name.split(".")[1])
            name = name.replace(f"stages.{at}.", f"layers.{at + 1}.")
            value = value.unflatten(-1, (-1, 2, 2)).transpose(-1, -3).flatten(-3)
        for ours, theirs in _TO_TIMM:
            name = name.replace(ours, theirs)
        renamed[name] = value
    return renamed


def test_where_windows_fit_and_the_controller_is_neutral_it_is_timms_swin():
    torch.manual_seed(0)
    network = SoliderSwin("tiny", 0.2).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if "norm" in name or name.endswith("table"):
                value.add_(0.3 * torch.randn_like(value))
        for scale, shift in zip(network.semantic_embed_w, network.semantic_embed_b, strict=True):
            scale.weight.zero_(), shift.weight.zero_()
            scale.bias.fill_(torch.tensor(1.0).expm1().log())  # of which softplus gives 1
    theirs = timm.create_model(
        "swin_tiny_patch4_window7_224", num_classes=0, img_size=(448, 224), always_partition=True
    ).eval()
    theirs.load_state_dict(for_timm(network.state_dict()))
    images = torch.randn(1, 3, 448, 224)
    with torch.inference_mode():
        expected = theirs.forward_features(images).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(images), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shift", [0, 3])
def test_windows_of_a_map_that_does_not_divide_patch_by_patch(shift):
    torch.manual_seed(0)
    windows = ShiftedWindows(4, 2, shift)
    height, width, rows, columns = 9, 5, 14, 7
    x = torch.randn(1, height, width, 4)
    attention = windows.w_msa
    with torch.no_grad():
        filled = torch.zeros(rows, columns, 4)
        filled[:height, :width] = x[0]
        q, k, v = attention.qkv(filled).view(rows, columns, 3, 2, 2).unbind(2)
        for row in range(height):
            for column in range(width):
                here, part = place(row, column, rows, columns, shift)
                scores, values = [], []
                for r in range(rows):
                    for c in range(columns):
                        there, other = place(r, c, rows, columns, shift)
                        if part[:2] != other[:2]:  # another window
                            continue
                        offset = 13 * (here[0] - there[0] + 6) + here[1] - there[1] + 6
                        score = (q[row, column] * k[r, c]).sum(-1) / 2**0.5
                        score = score + attention.relative_position_bias_table[offset]
                        scores.append(score - 100 * (part != other))
                        values.append(v[r, c])
                shares = torch.stack(scores).softmax(0)[..., None]  # (patches, heads, 1)
                expected = attention.proj((shares * torch.stack(values)).sum(0).flatten())
                torch.testing.assert_close(windows(x)[0, row, column], expected, atol=1e-5, rtol=1e-4)


def place(row, column, rows, columns, shift):
    """Where the shift puts a patch in its window; and its window, with the end of the map it comes from."""
    row, column = (row - shift) % rows, (column - shift) % columns
    wrapped = row >= rows - shift, column >= columns - shift
    return (row % 7, column % 7), (row // 7, column // 7, *wrapped)


def test_the_controller_scales_and_shifts_by_its_weight():
    torch.manual_seed(0)
    network = SoliderSwin("tiny", 0.75).eval()
    images = torch.randn(1, 3, 60, 30)
    with torch.no_grad():
        x = network.patch_embed.projection(F.pad(images, (0, 2))).permute(0, 2, 3, 1)
        x = network.patch_embed.norm(x)
        for i in range(3):
            x = network.stages[i](x)
            w, b = network.semantic_embed_w[i], network.semantic_embed_b[i]
            w.weight.mul_(20), b.weight.mul_(20)
            scale = torch.log1p(torch.exp(0.75 * w.weight[:, 0] + 0.25 * w.weight[:, 1] + w.bias))
            x = x * scale + 0.75 * b.weight[:, 0] + 0.25 * b.weight[:, 1] + b.bias
        expected = network.norm3(network.stages[3](x)).permute(0, 3, 1, 2)
        torch.testing.assert_close(network(images), expected)
    assert expected.shape == (1, 768, 2, 1)


def test_options():
    with pytest.raises(ConfigError, match=r"semantic_weight = 1\.5 is not possible; give 0 to 1"):
        rk.build_model("solider_swin_tiny", semantic_weight=1.5)
    assert rk.build_model("solider_swin_tiny", semantic_weight=0.5).beyond_weights["semantic_weight"] == "0.5"
    assert "semantic_weight" not in rk.build_model("solider_swin_tiny").beyond_weights
