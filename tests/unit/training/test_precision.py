"""What half types compute is right and no slower: some convolutions, which libraries get wrong, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.encoders.autocast import autocast
from reidkit.encoders.devices import has_native_bfloat16
from reidkit.training.gradient_cache import embed_in_pieces
from reidkit.training.precision import Precision

CPU = torch.device("cpu")
# The function, its input, its weight, its options; all end in one column or, transposed, start with one.
NARROW: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "last stage": (F.conv2d, (12, 64, 4, 2), (64, 64, 3, 3), {"stride": 2, "padding": 1}),
    "tall": (F.conv2d, (3, 48, 16, 2), (512, 48, 1, 3), {"stride": (1, 2), "padding": (0, 1)}),
    "depthwise": (F.conv2d, (16, 96, 15, 2), (96, 1, 7, 7), {"stride": 4, "padding": 3, "groups": 96}),
    "groups": (F.conv2d, (8, 64, 9, 1), (64, 32, 5, 5), {"stride": [2, 2], "padding": 2, "groups": 2}),
    "dilated": (F.conv2d, (24, 128, 10, 1), (64, 128, 3, 3), {"stride": 2, "padding": 2, "dilation": 2}),
    "cropped": (F.conv2d, (8, 64, 13, 5), (64, 64, 4, 4), {"stride": 3, "padding": "valid"}),
    "a point": (F.conv2d, (24, 64, 3, 2), (96, 64, 5, 5), {"stride": 4, "padding": 2}),
    "1-D": (F.conv1d, (8, 64, 1), (64, 64, 3), {"stride": (2,), "padding": 1}),
    "3-D": (F.conv3d, (4, 32, 3, 4, 1), (32, 32, 3, 3, 3), {"stride": 2, "padding": 1}),
    "transposed": (F.conv_transpose2d, (4, 32, 4, 1), (32, 32, 3, 3), {"stride": 2, "padding": 1}),
}


def poison() -> None:
    """Whoever reads memory that is not written reads NaN."""
    for size in (2**20, 2**18, 2**16, 2**14, 2**12, 2**10):
        del [torch.full((size,), torch.nan) for _ in range(4)][:]


def computed(name: str, kind: torch.dtype, *, bias: bool = False) -> tuple[Tensor, ...]:
    """Output of a narrow convolution, and the gradients of its input and weight."""
    function, input_shape, weight_shape, options = NARROW[name]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(input_shape, generator=generator).requires_grad_()
    weight = (torch.randn(weight_shape, generator=generator) / weight_shape[1] ** 0.5).requires_grad_()
    poison()
    with autocast(CPU, kind):
        output = function(inputs, weight, torch.ones(weight_shape[0]) if bias else None, **options)
    assert output.dtype == kind
    poison()
    output.backward(torch.randn(output.shape, generator=generator).to(kind))
    assert inputs.grad is not None
    assert weight.grad is not None
    return output.detach(), inputs.grad, weight.grad


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NARROW)
def test_narrow_convolutions_are_those_of_float32(name: str, kind: torch.dtype) -> None:
    for found, expected in zip(computed(name, kind), computed(name, torch.float32), strict=True):
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    # Inputs, too, were not rounded: this holds on CPUs whose library is right as well.
    assert torch.equal(
        computed(name, kind, bias=True)[0], computed(name, torch.float32, bias=True)[0].to(kind)
    )


def test_all_other_convolutions_keep_their_speed() -> None:
    torch.manual_seed(0)
    for shape, stride in (((2, 8, 8, 4), 2), ((2, 8, 8, 4), 1), ((2, 8, 8, 1), 1)):
        inputs, weight = torch.randn(shape), torch.randn(8, 8, 3, 3)
        with autocast(CPU, torch.bfloat16):
            found = F.conv2d(inputs, weight, stride=stride, padding=1)
        exact = F.conv2d(inputs, weight, stride=stride, padding=1)
        rounded = F.conv2d(inputs.bfloat16().float(), weight.bfloat16().float(), stride=stride, padding=1)
        assert not torch.equal(found, exact.bfloat16())
        torch.testing.assert_close(found.float(), rounded, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (3, 2)])
def test_depthwise_convolutions_with_slow_gradients_learn_in_float32(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(2, 8, 8, 8), torch.randn(8, 1, kernel, kernel)

    def computed() -> Tensor:
        return F.conv2d(inputs, weight, stride=stride, padding=kernel // 2, groups=8)

    exact = computed().bfloat16()
    with autocast(CPU, torch.bfloat16):
        assert not torch.equal(computed(), exact)  # nothing is differentiated: in half types, which is faster
        weight.requires_grad_()
        assert torch.equal(computed(), exact)
        with torch.no_grad():
            assert not torch.equal(computed(), exact)


@pytest.mark.parametrize("name", ["last stage", "transposed"])
def test_float64_stays_as_autocast_leaves_it(name: str) -> None:
    function, input_shape, weight_shape, options = NARROW[name]
    with autocast(CPU, torch.bfloat16):
        output = function(torch.ones(input_shape).double(), torch.ones(weight_shape).double(), **options)
    assert output.dtype == torch.float64


class Narrow(nn.Module):
    """A network whose last stage is one column wide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.Flatten()
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.layers(images)}


def gradients(num_pieces: int) -> list[Tensor]:
    model, precision = Narrow(), Precision("bfloat16", CPU)
    images = torch.randn(12, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    poison()
    with precision.autocast():
        features = embed_in_pieces(model, images, num_pieces) if num_pieces > 1 else model(images)
    total = features["embedding"].float().square().mean()
    poison()
    precision.backward(total)
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_accumulation_computes_them_the_same_way_again() -> None:
    whole, pieces = gradients(1), gradients(3)
    assert len(whole) == len(pieces) == 4
    for expected, found in zip(whole, pieces, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


def test_a_compiled_network_computes_them_the_same_way() -> None:
    model, images = Narrow(), torch.randn(12, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), autocast(CPU, torch.bfloat16):
        expected = model(images)["embedding"]
        found = torch.compile(model, fullgraph=True, backend="aot_eager")(images)["embedding"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_half_types_are_native_only_where_the_libraries_may_use_them(
    capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert has_native_bfloat16(CPU) is expected
