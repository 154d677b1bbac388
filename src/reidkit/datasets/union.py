"""Several data sets as one to train on, and perhaps another to be tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from reidkit import registry
from reidkit.datasets._layouts import existing_folder, numbered, subfolders
from reidkit.errors import ConfigError, did_you_mean
from reidkit.registry import register
from reidkit.types import JUNK, Dataset, Sample, Split


@register("dataset", "union")
def union(
    root: Path,
    *,
    sets: Sequence[str | Mapping[str, Any]] | str = (),
    test: str | None = None,
    without: Sequence[str] = (),
) -> Dataset:
    """The training parts of several sets as one; identities and cameras of different sets are kept apart.

    MSML (Xiao, Luo, Zhang 2017) trains on Market-1501, MARS, CUHK03 and CUHK-SYSU in this way::

        [data]
        name = "union"
        root = "data"
        sets = ["market1501:Market-1501-v15.09.15", "mars:MARS", { layout = "cuhk03", protocol = "classic" }]

    With ``test``, that set's training part is left out, and its query and gallery are the test part, under
    its own protocol: leave-one-set-out. Without it there is no test part; give one when evaluating.

    Args:
        root: folder that holds the sets.
        sets: "layout:folder", or "layout" where the folder is called as the layout is; or a table of
            ``layout``, ``folder`` and options of the layout. Left out, every folder in ``root`` that is
            called as a layout is.
        test: the layout, among the sets, to test on.
        without: layouts among the sets that are not trained on either: MARS films Market-1501's people.

    Identities count from 1 over all sets; ``Sample.identity_name`` is "layout/identity", and
    ``Sample.dataset`` the layout, by which batches can be balanced.

    Raises:
        ConfigError: no set, a set twice, a layout that does not exist, ``test`` or ``without`` that is none
            of them, or no set left to train on.
        DataError: a set that is not laid out as its layout says.
    """
    chosen = _chosen(existing_folder(Path(root), expected="a folder that holds data sets"), sets)
    left_out = [*without, *([] if test is None else [test])]
    for layout in left_out:
        if layout not in chosen:
            option = "test" if layout == test else "without"
            raise ConfigError(
                f"{option} = {layout!r} is none of the sets;{did_you_mean(layout, chosen)} "
                f"Sets: {', '.join(chosen)}"
            )
    trained = [layout for layout in chosen if layout not in left_out]
    if not trained:
        raise ConfigError(
            f"test and without leave out all sets ({', '.join(chosen)}); none is left to train on"
        )
    parts: dict[str, Dataset] = {
        layout: registry.build("dataset", layout, part.options, part.folder)
        for layout, part in chosen.items()
        if layout in trained or layout == test
    }
    labels = _Labels()
    train = [labels.relabelled(parts[layout].train, layout) for layout in trained]
    united = Dataset(
        name="union",
        root=Path(root),
        train=numbered(sample for split in train for sample in split),
        has_cameras=any(part.has_cameras for part in parts.values()),
        licence="; ".join(f"{layout}: {parts[layout].licence}" for layout in trained),
        skipped=tuple(path for part in parts.values() for path in part.skipped),
    )
    if test is None:
        return united
    tested = parts[test]
    return replace(
        united,
        query=labels.relabelled(tested.query, test),
        gallery=labels.relabelled(tested.gallery, test),
        multi_query=labels.relabelled(tested.multi_query, test),
        has_cameras=tested.has_cameras,
        protocol=tested.protocol,
        camera_filter=tested.camera_filter,
        split_name=tested.split_name,
        galleries=tested.galleries,
    )


class _Part(NamedTuple):
    folder: Path
    options: Mapping[str, Any]


def _chosen(root: Path, sets: Sequence[str | Mapping[str, Any]]) -> dict[str, _Part]:
    """Folder and options of each set, by its layout."""
    layouts = [name for name in registry.names("dataset") if name != "union"]
    if isinstance(sets, str):
        raise ConfigError(f'sets = {sets!r} is a text; expected a list, for example ["{sets}"]')
    if not sets:
        sets = [folder.name for folder in subfolders(root) if folder.name in layouts]
        if not sets:
            raise ConfigError(f"no folder in {root} is called as a layout is; list the sets as layout:folder")
    chosen: dict[str, _Part] = {}
    for entry in sets:
        layout, folder, options = _parsed(entry)
        if layout in chosen:
            raise ConfigError(f"sets has {layout!r} twice; unite the two in folders of their own layout")
        factory = registry.get("dataset", layout)
        if problems := registry.option_problems(
            factory, options, num_positional=1, where=f"sets: {layout!r}"
        ):
            raise ConfigError(problems)
        chosen[layout] = _Part(root / (folder or layout), options)
    return chosen


def _parsed(entry: str | Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """Layout, folder ("" for the layout's name) and options."""
    if isinstance(entry, str):
        layout, _, folder = entry.partition(":")
        return layout, folder, {}
    options = dict(entry)
    if "layout" not in options:
        raise ConfigError(f"sets has {dict(entry)}, which names no layout; add layout = ...")
    return str(options.pop("layout")), str(options.pop("folder", "")), options


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
        camera = sample.camera
        if camera is not None:
            camera = _number(self.cameras, layout, camera)
        return replace(
            sample,
            identity=identity,
            camera=camera,
            tracklet=tracklet,
            dataset=layout,
            identity_name=f"{layout}/{sample.identity_name or sample.identity}",
            camera_name=None if camera is None else f"{layout}/{sample.camera_name or sample.camera}",
        )


def _number(numbers: dict[tuple[str, int], int], layout: str, label: int) -> int:
    return numbers.setdefault((layout, label), len(numbers) + 1)
