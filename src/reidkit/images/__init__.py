"""Images: read them exactly, know what a file is and whether it is whole, bring them to a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidkit.images.reading import is_image, list_files, load_image

__all__ = ["is_image", "list_files", "load_image"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from reidkit.images import reading

        return getattr(reading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
