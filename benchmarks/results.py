"""Where benchmarks write what they measured, so that no figure is typed by hand."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reidkit.analysis.bootstrap import PairedDifference

RESULTS = Path(__file__).parent.parent / "docs" / "results.md"


def write_section(name: str, text: str, *, script: str | None = None, page: Path = RESULTS) -> None:
    """Replace what stands between the two marks of a section of a page, docs/results.md unless told."""
    script = script or name.replace("-", "_")
    begin, end = f"<!-- {name}: written by benchmarks/{script}.py -->", f"<!-- end {name} -->"
    before, found_begin, rest = page.read_text("utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"{page} has no section to write into; put {begin} and {end} under a heading there")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def rows_before(section: str) -> dict[str, str]:
    """Rows of a table as they stand in docs/results.md, by what stands in their first column."""
    text = RESULTS.read_text("utf-8").partition(f"<!-- {section}:")[2].partition(f"<!-- end {section} -->")[0]
    return {row.split(" | ")[0].removeprefix("| "): row for row in text.splitlines() if row.startswith("| ")}


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, with one digit; nothing where there are none."""
    if not values:
        return ""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def in_points(found: PairedDifference) -> str:
    """A difference of shares in points, with its interval."""
    low, high = (100 * bound for bound in found.interval)
    return f"{100 * found.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def processor() -> str:
    """What the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def device() -> str:
    """What a network trains on here: a GPU's name where there is one, else the processor's."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
