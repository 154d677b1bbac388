"""What jobs do: index a folder, import what was exported, cluster."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.errors import ConfigError, did_you_mean, shown
from reidkit.galleries import ExportedGallery, copy_gallery
from reidkit.progress import ProgressCallback
from reidkit.texts.printable import counted
from reidkit.web.jobs import Work
from reidkit.web.served import Served
from reidkit.web.settings import Settings
from reidkit.web.wanted import JobRequest

if TYPE_CHECKING:
    from reidkit.clustering.cluster import ClusterOptions


def work_of(served: Served, request: JobRequest, settings: Settings) -> Work:
    """What a job is to do.

    Only folders that the settings name are read: no path comes with a request. Raises :class:`ConfigError`
    where the folder is none of them, or options are out of range.
    """
    if request.kind == "cluster":
        from reidkit.clustering.cluster import ClusterOptions  # slow to import

        options = ClusterOptions(farthest=request.distance, k1=request.neighbours)
        return partial(_cluster, served, request, options)
    folder = _folder(request, settings)
    return partial(_index if request.kind == "index" else _import, served, request, folder)


def _folder(request: JobRequest, settings: Settings) -> Path:
    known = settings.folders
    if request.folder is None or request.folder not in known:
        named = shown(request.folder)
        near = did_you_mean(request.folder or "", known)
        raise ConfigError(
            f"folder is {named};{near} the settings name {', '.join(known) or 'none'}, in the table folders"
        )
    return known[request.folder]


def _index(served: Served, request: JobRequest, folder: Path, progress: ProgressCallback) -> str:
    from reidkit.datasets._given_images import given_images  # slow to import

    given = given_images([folder], pattern=request.pattern, needs_identity=False)
    with served.making:
        served.searcher.made()
    camera = request.camera
    added = served.searcher.add(given.images, camera=camera, progress=progress)
    return "; ".join([str(added), *given.left_out])


def _import(served: Served, request: JobRequest, folder: Path, progress: ProgressCallback) -> str:
    exported = ExportedGallery(folder)
    with served.making:
        gallery = served.searcher.made()
    return str(copy_gallery(exported, gallery, progress=progress))


def _cluster(served: Served, request: JobRequest, options: ClusterOptions, progress: ProgressCallback) -> str:
    from reidkit.clustering.proposals import propose

    progress(0, 1)
    found = propose(served.gallery, options, where=request.where or None)
    num_new = sum(not person.is_known for person in found.people)
    pictures, people = counted(found.num_items, "picture"), counted(num_new, "new person")
    return "; ".join([f"{pictures}, {people} proposed, {found.num_alone:,} like no other", *found.notes])
