"""What there is to know of a data set: one finding a fault, with examples and advice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reidkit.types import JUNK, Dataset, Sample, Split

NUM_EXAMPLES = 5

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a data set: what, how often, where for example, what to do."""

    severity: Severity
    title: str
    count: int
    examples: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        examples = f" ({'; '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.title}: {self.count:,}{examples}. {self.advice}"


def finding_if_any(severity: Severity, title: str, cases: Sequence[str], advice: str) -> Iterator[Finding]:
    """One finding if there is any case, else none."""
    if cases:
        yield Finding(severity, title, len(cases), tuple(cases[:NUM_EXAMPLES]), advice)


def by_identity(split: Split) -> dict[int, list[Sample]]:
    """Samples of each identity, without junk."""
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in split:
        if sample.identity != JUNK:
            groups[sample.identity].append(sample)
    return groups


def identity_names(split: Split, identities: Iterable[int]) -> list[str]:
    """Identities as their owner wrote them, sorted."""
    written = {sample.identity: sample.identity_name for sample in split}
    return [written[identity] or str(identity) for identity in sorted(identities)]


def identity_name(sample: Sample) -> str:
    """The identity as it was written."""
    return sample.identity_name or str(sample.identity)


def camera_name(sample: Sample) -> str | None:
    """The camera as it was written, ``None`` where it is not known."""
    return sample.camera_name or (None if sample.camera is None else str(sample.camera))


def short(sample: Sample, dataset: Dataset) -> str:
    """The path of a sample, below the root where it lies there."""
    return below(sample.path, dataset.root)


def below(path: Path, root: Path) -> str:
    """A path below the root, or as it is where it lies elsewhere."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
