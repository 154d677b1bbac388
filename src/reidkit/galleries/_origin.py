"""Which encoder filled a gallery, and whether embeddings are of that one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from reidkit.arrays import fingerprints_of
from reidkit.errors import ConfigError, DataError, shortened, shown

_LONGEST = 100_000  # characters of its description


def plain_encoder(encoder: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(encoder, Mapping):
        raise ConfigError(
            f"encoder is of type {type(encoder).__name__}; expected a mapping with a fingerprint"
        )
    try:
        text = json.dumps(dict(encoder), default=os.fspath)
        plain: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"encoder cannot be kept as JSON: {error}") from error
    if len(text) > _LONGEST:
        raise ConfigError(
            f"encoder takes {len(text):,} characters as JSON; at most {_LONGEST:,} are "
            "kept: a fingerprint and a path are enough"
        )
    if not isinstance(plain.get("fingerprint"), str):
        raise ConfigError(
            f"encoder has no text under 'fingerprint': {shown(plain)}; without it embeddings of "
            "different encoders cannot be told apart"
        )
    return plain


def check_encoder(
    recorded: Mapping[str, Any] | None, given: Mapping[str, Any], *, num_items: int, location: str
) -> None:
    """Raise :class:`DataError` where a gallery's items do not come from the given encoder."""
    if recorded is None and num_items:
        raise DataError(
            f"{location} holds {num_items} items, but not which encoder made them, so that "
            f"{_described(given)} cannot be checked; open it without encoder=, or fill a new gallery"
        )
    if recorded is not None and recorded["fingerprint"] not in _known_as(given, recorded):
        raise DataError(
            f"{location} was filled by another encoder: {_described(recorded)}, not {_described(given)}; "
            "scores between the two mean nothing: use that encoder, or fill a new gallery"
        )


def origin_of(embeddings: Any) -> dict[str, Any] | None:
    """What a gallery records of the encoder that embeddings come from; None where they do not say."""
    fingerprint, *former = fingerprints_of(embeddings) or (None,)
    return None if fingerprint is None else {"fingerprint": fingerprint, "former_fingerprints": former}


def _known_as(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """Fingerprints of an encoder; those of version 0.1.0 only in what that version recorded."""
    former = [] if "former_fingerprints" in recorded else given.get("former_fingerprints", [])
    return [given["fingerprint"], *former]


def _described(encoder: Mapping[str, Any]) -> str:
    fingerprint, path = shortened(str(encoder["fingerprint"])), shortened(str(encoder.get("path", "")), 200)
    return f"{path} (fingerprint {fingerprint})" if path else f"the encoder of fingerprint {fingerprint}"
