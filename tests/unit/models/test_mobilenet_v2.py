"""MobileNetV2 written out, beside timm's."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from reidkit.models import build_model
from reidkit.models._mobilenet_v2 import mobilenet_v2


@pytest.fixture
def both():
    """Ours and timm's, of equal weights."""
    torch.manual_seed(0)
    timms = build_model("timm:mobilenetv2_100", last_stride=1)
    ours = mobilenet_v2()
    ours.load_state_dict(timms.state_dict())
    return ours, timms


def test_it_is_like_timms_to_who_uses_it(both):
    ours, timms = both
    assert list(ours.state_dict()) == list(timms.state_dict())
    assert (ours.features, ours.smallest_side) == (timms.features, timms.smallest_side)
    assert (ours.mean, ours.std) == (timms.mean, timms.std)


def test_its_weights_are_drawn_with_the_spreads_of_timms():
    torch.manual_seed(0)
    ours, timms = mobilenet_v2().state_dict(), build_model("timm:mobilenetv2_100").state_dict()
    for name, tensor in ours.items():
        if tensor.numel() > 5_000:
            assert float(tensor.std()) == pytest.approx(float(timms[name].std()), rel=0.05), name
        elif tensor.ndim < 2:
            assert torch.equal(tensor, timms[name]), name


def test_it_computes_what_timm_does_to_the_bit_and_learns_the_same(both):
    images = torch.rand(2, 3, 64, 32)
    for model in both:
        model(images)["neck"].square().mean().backward()
    ours, timms = (dict(model.named_parameters()) for model in both)
    for name in ("backbone.network.conv_stem.weight", "backbone.network.blocks.6.0.conv_pwl.weight"):
        assert torch.equal(ours[name].grad, timms[name].grad), name
    with torch.inference_mode():
        embeddings = [model.eval().embed(images) for model in both]
    assert torch.equal(*embeddings)


def test_the_encoder_of_it_loads_without_timm():
    code = (
        "import sys; import reidkit as rk; import numpy as np; "
        "rk.load_encoder('reidkit-small').encode(np.zeros((8, 8, 3), np.uint8)); "
        "print([name for name in ('timm', 'torchvision', 'torch._dynamo') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
