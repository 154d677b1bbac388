"""What a study needs before its first run: data sets, loaded once and compared with what earlier runs saw,
and the weights that runs start from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reidkit import config, trust
from reidkit.errors import CheckpointError, ConfigError, shown
from reidkit.provenance import data_fingerprint, images_hash, read_run_file
from reidkit.studies.files import read_queries
from reidkit.studies.measured import saved_measurement, write_queries
from reidkit.studies.study import Run, fingerprint
from reidkit.studies.tasks import Folders, Measurement, Task
from reidkit.training.runs import RUN_FILE, load_data

if TYPE_CHECKING:
    from reidkit.types import Dataset

Found = TypeVar("Found")


def check_data(tasks: Sequence[Task], folders: Folders) -> None:
    """Check that all images exist and are those that earlier runs used, and all weights to start from.

    Raises:
        DataError: the training images of a run, or images to test on, do not exist.
        ConfigError: a run was trained, or measured, on other images; the weights it starts from do not exist.
    """
    loaded = LoadedData()
    for task in tasks:
        folder = folders.run(task.run)
        begun = (folder / RUN_FILE).is_file()
        if not begun:
            _check_start(task.run)
        data = loaded.training(task.run, as_drawn=begun)
        if begun:
            there = read_run_file(folder / RUN_FILE)["settings"].get("data")
            if there != loaded.trained(data):
                number = there.get("train_images") if isinstance(there, dict) else there
                raise _other_images(folder, f"trained on other images ({shown(number)})", data)
        for measurement in task.measurements:
            tested = data if measurement.test.data is None else loaded.testing(measurement)
            saved = saved_measurement(measurement, folders)
            if saved and saved["images"] != loaded.tested(tested):
                raise _other_images(folder, "measured on other images", tested)
            if saved:
                _add_identities(folder / f"{measurement.file_stem}.npz", tested)


def _check_start(run: Run) -> None:
    """Whether there are weights where the run is to start from."""
    from reidkit.encoders.loading import weights_file

    if init := run.configuration.train.init:
        try:
            weights_file(Path(init))
        except CheckpointError as error:
            raise ConfigError(
                f"the study has runs that start from train.init = {shown(str(init))}: {error}; train that "
                "first, or choose another start"
            ) from None


def _add_identities(file: Path, tested: Dataset) -> None:
    """Add the identities of queries to a result from a version that did not record them."""
    average_precisions, identities = read_queries(file)
    if identities is None:
        write_queries(file, average_precisions, tested)


def _other_images(folder: Path, what: str, data: Dataset) -> ConfigError:
    return ConfigError(
        f"{folder} was {what} than {data.root} holds now; bring them back, choose another folder for the "
        "study or its runs, or delete that run"
    )


class LoadedData:
    """Data sets and fingerprints of their images, each computed when first needed."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def training(self, run: Run, *, as_drawn: bool = True) -> Dataset:
        """A run's own data set; unless ``as_drawn``, that of any seed will do, to check that it exists."""
        data = config.as_tree(run.configuration)["data"]
        key: Any = [data, run.configuration.seed] if as_drawn else [data["name"], data["root"]]
        return self._once(key, lambda: load_data(run.configuration))

    def testing(self, measurement: Measurement) -> Dataset:
        """What a measurement is made on."""
        from reidkit.datasets import load_dataset

        test = measurement.test
        if test.data is None:
            return self.training(measurement.run)
        layout, root = test.data, Path(measurement.run.configuration.data.root) / test.folder
        key = [layout, str(root), test.options]

        def load() -> Dataset:
            with trust.from_file():
                return load_dataset(layout, root, **test.options)

        return self._once(key, load)

    def trained(self, data: Dataset) -> dict[str, Any]:
        """Fingerprint of the training images of a set that was loaded here."""
        return self._once(["trained", id(data)], lambda: data_fingerprint(data))

    def tested(self, data: Dataset) -> str:
        """Fingerprint of the images to test on."""
        return self._once(["tested", id(data)], lambda: images_hash(data.query, data.gallery))

    def _once(self, key: Any, load: Callable[[], Found]) -> Found:
        name = fingerprint(key)
        if name not in self._known:
            self._known[name] = load()
        found: Found = self._known[name]
        return found
