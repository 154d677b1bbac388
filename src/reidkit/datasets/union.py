"""Several data sets as one to train on, and perhaps another to be tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reidkit import registry
from reidkit.errors import ConfigError, did_you_mean
from reidkit.folder_trees import existing_folder, numbered, subfolders
from reidkit.registry import register
from reidkit.types import JUNK, Dataset, Sample, Split


@register("dataset", "union")
def union(root: Path, *, sets: Sequence[str] = (), test: str | None = None) -> Dataset:
    """The training parts of several sets as one; identities and cameras of different sets are kept apart.

    MSML (Xiao, Luo, Zhang 2017) trains on Market-1501, MARS, CUHK03 and CUHK-SYSU in this way::

        [data]
        name = "union"
        root = "data"
        sets = ["market1501:Market-1501-v15.09.15", "mars:MARS", "cuhk03:cuhk03_release"]

    With ``test``, that set's training part is left out, and its query and gallery are the test part, under
    its own protocol: leave-one-set-out. Without it there is no test part; give one when evaluating.

    Args:
        root: folder that holds the sets.
        sets: "layout:folder", or "layout" where the folder is called as the layout is. Left out, every
            folder in ``root`` that is called as a layout is.
        test: the layout, among the sets, to test on.

    Identities count from 1 over all sets; ``Sample.identity_name`` is "layout/identity", and
    ``Sample.dataset`` the layout, by which batches can be balanced.

    Raises:
        ConfigError: no set, a set twice, a layout that does not exist, or ``test`` that is none of them.
        DataError: a set that is not laid out as its layout says.
    """
    folders = _folders(existing_folder(Path(root), expected="a folder that holds data sets"), sets)
    if test is not None and test not in folders:
        raise ConfigError(
            f"test = {test!r} is none of the sets;{did_you_mean(test, folders)} Sets: {', '.join(folders)}"
        )
    parts: dict[str, Dataset] = {
        layout: registry.build("dataset", layout, {}, folder) for layout, folder in folders.items()
    }
    labels = _Labels()
    train = [labels.relabelled(parts[layout].train, layout) for layout in parts if layout != test]
    united = Dataset(
        name="union",
        root=Path(root),
        train=numbered(sample for split in train for sample in split),
        has_cameras=any(part.has_cameras for part in parts.values()),
        licence="; ".join(f"{layout}: {parts[layout].licence}" for layout in parts if layout != test),
        skipped=tuple(path for part in parts.values() for path in part.skipped),
    )
    if test is None:
        return united
    tested = parts[test]
    return replace(
        united,
        query=labels.relabelled(tested.query, test),
        gallery=labels.relabelled(tested.gallery, test),
        has_cameras=tested.has_cameras,
        protocol=tested.protocol,
        camera_filter=tested.camera_filter,
        split_name=tested.split_name,
        galleries=tested.galleries,
    )


def _folders(root: Path, sets: Sequence[str]) -> dict[str, Path]:
    """Folder of each set, by its layout."""
    layouts = [name for name in registry.names("dataset") if name != "union"]
    if isinstance(sets, str):
        raise ConfigError(f'sets = {sets!r} is a text; expected a list, for example ["{sets}"]')
    if not sets:
        sets = [folder.name for folder in subfolders(root) if folder.name in layouts]
        if not sets:
            raise ConfigError(f"no folder in {root} is called as a layout is; list the sets as layout:folder")
    folders: dict[str, Path] = {}
    for entry in sets:
        layout, _, folder = entry.partition(":")
        if layout in folders:
            raise ConfigError(f"sets has {layout!r} twice; unite the two in folders of their own layout")
        registry.get("dataset", layout)
        folders[layout] = root / (folder or layout)
    return folders


class _Labels:
    """Numbers for identities, cameras and tracklets that no two sets share."""

    def __init__(self) -> None:
        self.identities: dict[tuple[str, int], int] = {}
        self.cameras: dict[tuple[str, int], int] = {}
        self.tracklets: dict[tuple[str, int], int] = {}

    def relabelled(self, split: Split, layout: str) -> Split:
        return tuple(self._relabelled(sample, layout) for sample in split)

    def _relabelled(self, sample: Sample, layout: str) -> Sample:
        identity, tracklet = JUNK, sample.tracklet
        if sample.identity != JUNK:
            identity = _number(self.identities, layout, sample.identity)
        if tracklet is not None:
            tracklet = _number(self.tracklets, layout, tracklet)
        return replace(
            sample,
            identity=identity,
            camera=_number(self.cameras, layout, sample.camera),
            tracklet=tracklet,
            dataset=layout,
            identity_name=f"{layout}/{sample.identity_name or sample.identity}",
        )


def _number(numbers: dict[tuple[str, int], int], layout: str, label: int) -> int:
    return numbers.setdefault((layout, label), len(numbers) + 1)
