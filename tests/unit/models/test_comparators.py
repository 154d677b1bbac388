"""Networks of the papers that others compare with: MCP, DGD."""

from __future__ import annotations

import torch

import reidkit as rk


def test_dgd_has_the_papers_widths() -> None:
    model = rk.build_model("dgd").eval()
    widths, shapes, images = [], [], torch.zeros(1, 3, 144, 56)
    x = torch.nn.functional.max_pool2d(model.stem(images), 2)
    for block in model.blocks:
        x = block(x)
        widths.append(x.shape[1])
        shapes.append(tuple(x.shape[2:]))
    assert widths == [256, 384, 512, 768, 1024, 1536]
    assert shapes == [(72, 28), (36, 14), (36, 14), (18, 7), (18, 7), (9, 4)]


def test_mcp_sees_each_part_in_a_column_of_its_own() -> None:
    torch.manual_seed(0)
    model = rk.build_model("mcp").eval()
    images = torch.randn(1, 3, 230, 80)
    found: dict[str, torch.Tensor] = {}
    model.joined.register_forward_pre_hook(lambda _, given: found.update(joined=given[0]))
    model(images)
    before = found["joined"]
    images[:, :, 190:] = 0  # the lowest part alone
    model(images)
    changed = (found["joined"] != before)[0]
    assert before.shape == (1, 800)
    assert changed[:400].any()
    assert not changed[400:700].any()
    assert changed[700:].any()


def test_mcp_takes_its_own_size_without_resampling() -> None:
    model = rk.build_model("mcp").eval()
    low = model.conv1(torch.zeros(1, 3, 230, 80))
    assert low.shape[2:] == (75, 25)
