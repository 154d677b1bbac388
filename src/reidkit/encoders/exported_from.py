"""What an exported file says of the encoder that it was made from, in an entry of its metadata of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidkit.encoders.runtimes import EXPORTED_FROM_KEY
from reidkit.errors import CheckpointError, short

Fingerprint = Annotated[str, Field(min_length=1, max_length=64)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ExportedFrom:
    """The encoder that a file was exported from.

    Attributes:
        file: the file's own fingerprint when it was written. Where it is another today, the network was
            changed since, and what is said here is not of it.
        fingerprints: of the encoder, in whose place the file may be used; empty for a quantised file, whose
            embeddings are its own.
        card: of the encoder.
    """

    file: Fingerprint
    fingerprints: list[Fingerprint] = Field(default_factory=list, max_length=8)
    card: dict[str, Any] = Field(default_factory=dict)

    def as_json(self) -> str:
        """Text for the metadata."""
        return json.dumps(asdict(self), default=str)


def read_exported_from(entry: object, path: Path) -> ExportedFrom | None:
    """The entry of a file's metadata; None where the file has none.

    Raises :class:`CheckpointError` where it holds something else.
    """
    if entry is None:
        return None
    try:
        found = TypeAdapter(ExportedFrom).validate_python(entry)
    except (ValidationError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its metadata {EXPORTED_FROM_KEY!r} does not describe an encoder: {short(error)}; "
            "export it again"
        ) from error
    for key in ("data", "calibration"):
        if not isinstance(value := found.card.get(key) or {}, dict):
            raise CheckpointError(f"{path}: its card's {key} is {short(value)}, no table; export it again")
    return found
