"""The training loop: draw a batch, embed it, sum the losses, step; validate, save, go on.

Everything random is a function of (seed, epoch, batch), so that a run that was interrupted anywhere and
started again ends with the same weights, bit for bit on one thread, as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from reidkit import distributed, ops
from reidkit.checkpoint import load_checkpoint, save_checkpoint
from reidkit.config import OptimConfig, TransformConfig
from reidkit.devices import default_device, use_bfloat16
from reidkit.encoder import Encoder
from reidkit.errors import CheckpointError, ConfigError, DataError, TrainingError, UnknownName
from reidkit.evaluation import evaluate_features, validation_features
from reidkit.files import write_atomically
from reidkit.models import Embedder
from reidkit.objectives import Objective, Step, check_objectives, feature_of, name_of, reads, without_absent
from reidkit.optim import build_optimizer, learning_rate, set_learning_rate
from reidkit.provenance import check_run_folder, data_fingerprint, versions
from reidkit.samplers import BatchSampler, IdentitySampler, RandomSampler
from reidkit.tracking import Meter, MetricsFile, Record, Tracker, tensorboard
from reidkit.transforms import TrainingImages, batches, collate, normalize
from reidkit.types import Dataset


class Trainer:
    """Trains a model on a data set's ``train`` part and keeps everything about it in one folder.

    The folder holds ``run.json`` (settings, versions, data), ``metrics.jsonl``, ``last.ckpt`` (to go on
    from), ``last.safetensors`` and, where the data set has a ``val`` part, ``best.safetensors`` (highest
    validation mAP; the test part is never looked at). If the folder holds a run already, :meth:`fit` goes on
    with it.

    Args:
        model: the network, from :func:`reidkit.build_model`.
        data: the data set, from :func:`reidkit.load_dataset`.
        losses: losses or :class:`Objective`; a bare loss has weight 1 and the model's usual feature.
        out: the run folder.
        epochs: passes over the training images.
        sampler: "identity" (P x K) or "random".
        identities_per_batch, images_per_identity: P and K of the global batch, over all processes.
        spread_cameras: take the K images of an identity from as many cameras as it has.
        balance_sets: as many identities of each data set in every batch, where several are united.
        seed: of batches and augmentation. Weights are drawn by who builds the model.
        transform: size and augmentation of images.
        optim: optimiser and schedule.
        precision: "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware has it.
        channels_last: memory order of images.
        num_workers: processes that read images.
        validate_every: epochs between validations.
        checkpoint_minutes: save at least this often, besides after every epoch.
        log_every: steps between records.
        device: a GPU where there is one.
        trackers: called with every record, besides the run's own.
        say: called with sentences for the user.
        configuration: text kept as ``config.toml`` in the run folder.

    Raises:
        ConfigError: settings that cannot be used together or with this data.
        DataError: an empty training part.
    """

    def __init__(
        self,
        model: Embedder,
        data: Dataset,
        losses: Sequence[nn.Module | Objective],
        *,
        out: str | Path,
        epochs: int = 120,
        sampler: str = "identity",
        identities_per_batch: int = 32,
        images_per_identity: int = 4,
        spread_cameras: bool = False,
        balance_sets: bool = False,
        seed: int = 0,
        transform: TransformConfig | None = None,
        optim: OptimConfig | None = None,
        precision: str = "auto",
        channels_last: bool = True,
        num_workers: int = 2,
        validate_every: int = 5,
        checkpoint_minutes: float = 10.0,
        log_every: int = 20,
        device: str | torch.device | None = None,
        trackers: Sequence[Tracker] = (),
        say: Callable[[str], None] = print,
        configuration: str | None = None,
    ) -> None:
        if not data.train:
            raise DataError(f"data set {data.name!r} at {data.root} has no training images")
        self.device = torch.device(device or default_device())
        self.model, self.data, self.out = model, data, Path(out)
        self.epochs, self.seed = epochs, seed
        self.transform, self.optim = transform or TransformConfig(), optim or OptimConfig()
        self.bfloat16 = use_bfloat16(precision, self.device)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.validate_every, self.log_every = validate_every, log_every
        self.checkpoint_minutes = checkpoint_minutes
        self.trackers, self.say, self.configuration = list(trackers), say, configuration

        identities = sorted({sample.identity for sample in data.train})
        class_of = {identity: number for number, identity in enumerate(identities)}
        self.fingerprint = data_fingerprint(data)
        self.labels = torch.tensor([class_of[sample.identity] for sample in data.train])
        objectives = [item if isinstance(item, Objective) else Objective(item) for item in losses]
        model.check_image_size(self.transform.height, self.transform.width)
        self.objectives, absent = without_absent(objectives, model)
        for objective in absent:
            self.say(f"loss {name_of(objective)!r} left out: the network has no {objective.feature}")
        check_objectives(self.objectives, model, num_epochs=epochs)
        self._size_classifiers(len(identities))
        self.sampler_settings = {
            "kind": sampler,
            "identities_per_batch": identities_per_batch,
            "images_per_identity": images_per_identity,
            "spread_cameras": spread_cameras,
            "balance_sets": balance_sets,
        }
        self.sampler = self._build_sampler(
            sampler, identities_per_batch, images_per_identity, cameras=spread_cameras, sets=balance_sets
        )
        self.loader = DataLoader(
            TrainingImages(data.train, self.transform, mean=model.mean),
            batch_sampler=self.sampler,  # yields draws, not bare indices
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            worker_init_fn=_ignore_interrupts,
            collate_fn=collate,
        )
        self.step_module = Step(model, self.objectives).to(self.device).to(memory_format=self.memory_format)
        self.optimizer = build_optimizer(self.optim, [self.step_module])
        self.epoch = self.batch = 0  # the next batch to train on
        self.best: dict[str, float] = {}
        self.stop_requested = False

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.epoch * self.sampler.num_batches + self.batch

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result. Two runs with equal settings are the same run."""
        settings: dict[str, Any] = {
            "seed": self.seed,
            "epochs": self.epochs,
            "model": dict(self.model.description),
            "losses": [objective.describe() for objective in self.objectives],
            "sampler": self.sampler_settings,
            "transform": dataclasses.asdict(self.transform),
            "optim": dataclasses.asdict(self.optim),
            "precision": "bfloat16" if self.bfloat16 else "float32",
            "data": self.fingerprint,
        }
        as_read: dict[str, Any] = json.loads(json.dumps(settings))  # lists where there were tuples
        return as_read

    def fit(self) -> Trainer:
        """Train until the last epoch, going on with what the run folder holds.

        Raises:
            ConfigError: the folder holds a run with other settings.
            TrainingError: a loss is not finite; the last good checkpoint stays.
            KeyboardInterrupt: after ctrl-C, when the step under way is done and saved.
        """
        self._open_run_folder()
        wrapped = self._wrap()
        if self.sampler.num_left_out and self.step == 0:
            self.say(f"{self.sampler.num_left_out} images do not fill a batch and are left out of each epoch")
        with self._graceful_stop():
            while self.epoch < self.epochs:
                self._train_epoch(wrapped)
                self._finish_epoch()
        return self

    # One epoch

    def _train_epoch(self, wrapped: nn.Module) -> None:
        self.sampler.start(self.epoch, first_batch=self.batch)
        self.model.train()
        interval, whole_epoch = Meter(), Meter()
        last_saved = time.monotonic()
        for images, indices in batches(self.loader):
            for meter in (interval, whole_epoch):
                meter.data_ready()
            rate = learning_rate(
                self.optim, self.step, steps_per_epoch=self.sampler.num_batches, num_epochs=self.epochs
            )
            set_learning_rate(self.optimizer, rate)
            terms, features, labels = self._train_step(wrapped, images, indices)
            self.batch += 1
            for meter in (interval, whole_epoch):
                meter.step_done(terms, num_images=self.sampler.batch_size)
            if self.step % self.log_every == 0:
                self._log_step(interval, features, labels, rate)
                interval = Meter()
            if self.stop_requested:
                self._save()
                raise KeyboardInterrupt
            if time.monotonic() - last_saved > 60 * self.checkpoint_minutes:
                self._save()
                last_saved = time.monotonic()
        self._track({"kind": "epoch", **whole_epoch.read()})

    def _train_step(
        self, wrapped: nn.Module, images: Tensor, indices: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        # Dropout's draws depend on the step alone, so there is no generator state to save.
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        inputs = normalize(images.to(self.device, non_blocking=True), self.model.mean, self.model.std)
        labels = distributed.gather_labels(self.labels[indices].to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            try:
                terms, features = wrapped(inputs.to(memory_format=self.memory_format), labels, self.epoch)
            except DataError as error:  # a loss refuses embeddings that are not finite
                raise TrainingError(self._cannot_go_on(str(error))) from error
        total = sum(
            (o.weight * terms[name_of(o)] for o in self.objectives if name_of(o) in terms), torch.zeros(())
        )
        self._check_finite(total, terms)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if self.optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.step_module.parameters(), self.optim.clip_norm)
        self.optimizer.step()
        return terms, features, labels

    def _check_finite(self, total: Tensor, terms: dict[str, Tensor]) -> None:
        if not torch.isfinite(total):
            shown = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise TrainingError(self._cannot_go_on(f"the loss is not finite ({shown})"))

    def _cannot_go_on(self, reason: str) -> str:
        return (
            f"stopped at step {self.step} (epoch {self.epoch}): {reason}. The last good checkpoint of "
            f"{self.out} is kept. Try a lower optim.lr, a longer warm-up or optim.clip_norm, elsewhere"
        )

    def _finish_epoch(self) -> None:
        self.epoch, self.batch = self.epoch + 1, 0
        last = self.epoch == self.epochs
        if self.data.val and (last or self.epoch % self.validate_every == 0):
            self._validate()
        if distributed.is_main():
            self.encoder().save(self.out / "last.safetensors")
        self._save()  # last: until the checkpoint says the epoch is done, it is done again

    def _validate(self) -> None:
        """Score the held-out identities; keep the weights if they are the best so far."""
        if distributed.is_main():
            encoder = self.encoder()
            query, gallery = validation_features(encoder.features(self.data.val))
            scores = evaluate_features(query, gallery)
            mean_average_precision = scores.mean_average_precision
            self._track({"kind": "validation", "mAP": mean_average_precision, "rank-1": scores.rank(1)})
            if mean_average_precision > self.best.get("mAP", -1.0):
                self.best = {"mAP": mean_average_precision, "epoch": self.epoch}
                self.encoder().save(self.out / "best.safetensors")

    def encoder(self) -> Encoder:
        """The network as it is now, ready to embed images."""
        card = {
            "data": self.fingerprint,
            "data_licence": self.data.licence,
            "recipe": self.settings,
            "epoch": self.epoch,
            "step": self.step,
            "validation": self.best,
            "versions": versions(),
        }
        return Encoder(
            self.model,
            height=self.transform.height,
            width=self.transform.width,
            card=card,
            device=self.device,
            bfloat16=self.bfloat16,
        )

    # Logging

    def _log_step(self, interval: Meter, features: dict[str, Tensor], labels: Tensor, rate: float) -> None:
        record = {
            "kind": "step",
            "lr": rate,
            "progress": self.step / self.sampler.num_batches,
            **interval.read(),
        }
        statistics = self._batch_statistics(features, labels)
        record |= {f"batch/{name}": value for name, value in statistics.items()}
        self._track(record)
        if statistics.get("collapsed"):
            self.say(
                f"step {self.step}: all embeddings have fallen onto one point; metric losses give no "
                "gradient there. Lower optim.lr, lengthen the warm-up, or add an identity loss"
            )

    def _batch_statistics(self, features: dict[str, Tensor], labels: Tensor) -> dict[str, Any]:
        metric = [o for o in self.objectives if o.counts_in(self.epoch) and reads(o.loss) == "metric"]
        if not metric:
            return {}
        loss = metric[0].loss
        return ops.batch_statistics(
            features[feature_of(self.model, metric[0])].detach(),
            labels,
            margin=getattr(loss, "margin", None),
            normalize=getattr(loss, "normalize", True),
        ).as_dict()

    def _track(self, record: Record) -> None:
        if distributed.is_main():
            for tracker in self.trackers:
                tracker({**record, "step": self.step, "epoch": self.epoch})

    # The run folder

    def _open_run_folder(self) -> None:
        if distributed.is_main():
            check_run_folder(self.out, self.settings)
        distributed.barrier()  # nobody looks into the folder before it was found good
        resuming = (self.out / "last.ckpt").is_file()
        distributed.barrier()  # nobody writes into it before everybody has looked
        if resuming:
            self._resume(self.out / "last.ckpt")
        if distributed.is_main():
            provenance = {"settings": self.settings, "versions": versions(), "data_root": str(self.data.root)}
            write_atomically(self.out / "run.json", json.dumps(provenance, indent=2))
            if self.configuration is not None:
                write_atomically(self.out / "config.toml", self.configuration)
            self.trackers.insert(0, MetricsFile(self.out / "metrics.jsonl", last_step=self.step))
            if writer := tensorboard(self.out / "tensorboard"):
                self.trackers.append(writer)
        if not resuming:
            self._save()  # the first weights may be drawn without a seed; a run killed early keeps them

    def _resume(self, checkpoint: Path) -> None:
        state, problem = load_checkpoint(checkpoint)
        if problem:
            self.say(problem)
        try:
            self.step_module.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{checkpoint} does not fit this run: {error}") from error
        self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]
        if self.epoch >= self.epochs:
            self.say(f"{self.out}: training is complete ({self.epochs} epochs)")
        else:
            self.say(f"going on with {self.out} at epoch {self.epoch}, batch {self.batch}")

    def _save(self) -> None:
        # No barrier: processes come here by their own clocks, and only the main one has something to do.
        if distributed.is_main():
            state = {
                "epoch": self.epoch,
                "batch": self.batch,
                "best": self.best,
                "weights": self.step_module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            save_checkpoint(self.out / "last.ckpt", state)

    # Putting the parts together

    def _size_classifiers(self, num_identities: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for objective in self.objectives:
                fill = getattr(objective.loss, "fill", None)
                if fill and reads(objective.loss) == "weight":
                    fill(groups=self.model.weight_groups.get(str(objective.feature), 1))
                elif fill:
                    dim = self.model.features[feature_of(self.model, objective)]
                    fill(num_identities=num_identities, dim=dim)

    def _build_sampler(
        self, kind: str, identities_per_batch: int, images_per_identity: int, *, cameras: bool, sets: bool
    ) -> BatchSampler:
        place = {"seed": self.seed, "rank": distributed.rank(), "world_size": distributed.world_size()}
        if kind not in ("identity", "random"):
            raise UnknownName("sampler", kind, ("identity", "random"))
        if kind == "random":
            if cameras or sets:
                raise ConfigError("spread_cameras and balance_sets go with sampler 'identity', not 'random'")
            batch_size = identities_per_batch * images_per_identity
            return RandomSampler(len(self.labels), batch_size=batch_size, **place)
        train = self.data.train
        return IdentitySampler(
            self.labels.numpy(),
            identities_per_batch=identities_per_batch,
            images_per_identity=images_per_identity,
            cameras=[sample.camera for sample in train] if cameras else None,
            sets=[sample.dataset or self.data.name for sample in train] if sets else None,
            **place,
        )

    def _wrap(self) -> nn.Module:
        if distributed.world_size() == 1:
            return self.step_module
        # Some parameters may get no gradient: a loss that starts later, a feature that nobody reads.
        wrapped: nn.Module = DistributedDataParallel(self.step_module, find_unused_parameters=True)
        return wrapped

    @contextmanager
    def _graceful_stop(self) -> Iterator[None]:
        """The first ctrl-C ends after the step under way and saves; the second ends at once."""

        def request(number: int, frame: FrameType | None) -> None:
            if self.stop_requested:
                raise KeyboardInterrupt
            self.stop_requested = True

        try:
            before = signal.signal(signal.SIGINT, request)
        except ValueError:  # not in the main thread: whoever runs us there handles signals
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides when its workers stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
