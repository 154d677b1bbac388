"""Report pages from flat arguments, so that a test can change one of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from reidkit.reports.inputs import Results, RunDetails
from reidkit.reports.page import write_report


def write_page(path: Path, **inputs: Any) -> Path:
    """``write_report`` with the fields of its results and details among its arguments."""
    results, details = (
        kind(**{field.name: inputs.pop(field.name) for field in fields(kind) if field.name in inputs})
        for kind in (Results, RunDetails)
    )
    return write_report(path, results, details, **inputs)
