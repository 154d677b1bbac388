"""The training loop: draw a batch, embed it, sum the losses, step; validate, save, go on.

Everything random is a function of (seed, epoch, batch), so that a run that was interrupted anywhere and
started again ends with the same weights, bit for bit on one thread, as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidkit import distributed
from reidkit.accumulation import check_pieces
from reidkit.batching import build_loader, build_sampler, check_pairs, remarks
from reidkit.comparison import compare
from reidkit.config import OptimConfig, TransformConfig, schedule_problems
from reidkit.devices import default_device, full_memory_explained
from reidkit.ema import WeightAverage
from reidkit.encoder import Encoder
from reidkit.errors import CheckpointError, ConfigError, DataError, TrainingError, UnknownName
from reidkit.evaluation import evaluate_features
from reidkit.frozen import TrainingMode
from reidkit.initial import start_from
from reidkit.loader import UnreadableImages, batches
from reidkit.models import Embedder
from reidkit.objectives import Objective, Step, name_of, prepare_objectives
from reidkit.optim import build_optimizer, learning_rate, set_learning_rate
from reidkit.precision import Precision
from reidkit.printable import counted
from reidkit.provenance import data_fingerprint, versions
from reidkit.run_folder import RunFolder
from reidkit.same_person import fit_calibration
from reidkit.stopping import GracefulStop
from reidkit.tracking import Tracker
from reidkit.training_log import TrainingLog
from reidkit.transforms import normalize
from reidkit.types import Dataset
from reidkit.validation import check_validation, embed_validation

BATCH_NORMS = ("local", "synchronised", "frozen")


class Trainer:
    """Trains a model on a data set's ``train`` part and keeps everything about it in one folder.

    The folder holds ``run.json`` (settings, versions, data), ``metrics.jsonl``, ``last.ckpt`` and
    ``previous.ckpt`` (to go on from), ``last.safetensors`` and, where the data set has a ``val`` part,
    ``best.safetensors`` (highest validation mAP; the test part is never looked at). If the folder holds a run
    already, :meth:`fit` goes on with it.

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
        init: run folder or weights file to start from (:func:`reidkit.initial.start_from`).
        precision: see :class:`reidkit.precision.Precision`.
        compile: compile the network (``torch.compile``).
        accumulate: pieces to embed a process's images in (:mod:`reidkit.accumulation`).
        batch_norm: statistics "local" to each process, "synchronised", or "frozen" as they are at the start.
        ema_decay: of the moving average of weights that is validated and kept; 0 is off.
        channels_last: memory order of images.
        frames: of each tracklet an epoch takes "all" frames, some "random" ones or some "evenly" spaced ones.
        frames_per_tracklet: how many, where not all.
        num_workers: processes that read images.
        unreadable: where an image cannot be read, "stop", or "skip" it: take another, and count it.
        cache: keep decoded, resized images in "ram" or on "disk"; "none" decodes them each time.
        cache_gb: limit of the cache; in RAM each process of a distributed run has its own.
        cache_folder: of a disk cache, :func:`reidkit.crops.default_folder` if left out.
        validate_every: epochs between validations.
        checkpoint_minutes: save at least this often, besides after every epoch.
        log_every: steps between records.
        device: a GPU where there is one.
        trackers: called with every record, besides the run's own; closed at the end where they can be.
        say: called with sentences for the user.
        configuration: text kept as ``config.toml`` in the run folder.

    Raises:
        ConfigError: settings that cannot be used together or with this data.
        DataError: an empty training part, or a validation part in which there is nobody to find.
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
        frames: str = "all",
        frames_per_tracklet: int = 4,
        seed: int = 0,
        transform: TransformConfig | None = None,
        optim: OptimConfig | None = None,
        init: str | Path = "",
        precision: str = "auto",
        compile: bool = False,
        accumulate: int = 1,
        batch_norm: str = "local",
        ema_decay: float = 0.0,
        channels_last: bool = True,
        num_workers: int = 2,
        unreadable: str = "stop",
        cache: str = "none",
        cache_gb: float = 4.0,
        cache_folder: str | Path | None = None,
        validate_every: int = 5,
        checkpoint_minutes: float = 10.0,
        log_every: int = 20,
        device: str | torch.device | None = None,
        trackers: Sequence[Tracker] = (),
        say: Callable[[str], None] = print,
        configuration: str | None = None,
    ) -> None:
        if not data.train:
            raise DataError(f"data set {data.name!r} at {data.place} has no training images")
        if data.val:
            check_validation(data)
        self.device = torch.device(device or default_device())
        self.model, self.data, self.out = model, data, Path(out)
        self.epochs, self.seed = epochs, seed
        self.transform, self.optim = transform or TransformConfig(), optim or OptimConfig()
        if problems := schedule_problems(self.optim, epochs):
            raise ConfigError(problems)
        self.precision = Precision(precision, self.device)
        self.init, self.accumulate = str(init), accumulate
        self.batch_norm, self.ema_decay = batch_norm, ema_decay
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.validate_every, self.log_every = validate_every, log_every
        self.checkpoint_minutes = checkpoint_minutes
        self.trackers, self.say, self.configuration = trackers, say, configuration

        identities = sorted({sample.identity for sample in data.train})
        class_of = {identity: number for number, identity in enumerate(identities)}
        self.fingerprint = data_fingerprint(data)
        self.labels = torch.tensor([class_of[sample.identity] for sample in data.train])
        model.check_image_size(self.transform.height, self.transform.width)
        self.objectives = prepare_objectives(
            losses, model, num_epochs=epochs, num_identities=len(identities), seed=seed, say=say
        )
        self.sampler_settings: dict[str, Any] = {
            "kind": sampler,
            "identities_per_batch": identities_per_batch,
            "images_per_identity": images_per_identity,
            "spread_cameras": spread_cameras,
            "balance_sets": balance_sets,
            "frames": frames,
            "frames_per_tracklet": frames_per_tracklet,
        }
        classes = self.labels.numpy()
        self.sampler = build_sampler(data, classes, seed=seed, **self.sampler_settings)
        if self.batch_norm not in BATCH_NORMS:
            raise UnknownName("choice of batch_norm", self.batch_norm, BATCH_NORMS)
        check_pieces(
            self.accumulate,
            self.sampler.batch_size // distributed.world_size(),
            smallest=1 if self.batch_norm == "frozen" else 2,
        )
        # Losses from elsewhere do not say whether they compare images.
        of_pairs = [name_of(o) for o in self.objectives if getattr(o.loss, "reads", None) == "metric"]
        self.remarks = [
            *remarks(self.sampler, len(data.train)),
            *check_pairs(self.sampler, data, classes, of_pairs),
        ]
        self.stop = GracefulStop()
        self.unreadable = UnreadableImages(data.train, say=self.say) if unreadable == "skip" else None
        self.loader = build_loader(
            data,
            self.sampler,
            self.transform,
            mean=model.mean,
            num_workers=num_workers,
            unreadable=unreadable,
            cache=cache,
            cache_gb=cache_gb,
            cache_folder=cache_folder,
            prepare_worker=self.stop.for_workers(),
            pin_memory=self.device.type == "cuda",
            say=self.say,
        )
        self._prepare_network(compile=compile)
        self.folder = RunFolder(self.out, say=say)
        self.epoch = self.batch = 0  # the next batch to train on
        self.validation_due = False  # of the epoch before
        self.best: dict[str, float] = {}
        self.average: WeightAverage | None = None
        self.log = TrainingLog(model, self.objectives, device=self.device, say=say)

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.epoch * self.sampler.num_batches + self.batch

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.epoch >= self.epochs and not self.validation_due

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
            "init": self.init,
            "precision": self.precision.name,
            "accumulate": self.accumulate,
            "batch_norm": self.batch_norm,
            "ema_decay": self.ema_decay,
            "data": self.fingerprint,
        }
        as_read: dict[str, Any] = json.loads(json.dumps(settings))  # lists where there were tuples
        return as_read

    def fit(self) -> Trainer:
        """Train until the last epoch, going on with what the run folder holds.

        Raises:
            ConfigError: the folder holds a run with other settings.
            TrainingError: a loss is not finite, or another process of the run was lost; the last good
                checkpoint stays.
            KeyboardInterrupt: after ctrl-C, when the step under way is done and saved.
            SystemExit: the same after SIGTERM, with code 143.
        """
        distributed.check_agreement(
            {
                **self.settings,
                "out": str(self.out),
                "train.validate_every": self.validate_every,
                "train.unreadable": "stop" if self.unreadable is None else "skip",
            }
        )
        with distributed.failures_explained(), self.folder.held(self.settings), closing(self.log):
            wrapped = self._open_run()
            with self.stop, full_memory_explained(self.device, self._when_memory_is_full()):
                if self.validation_due:
                    self._keep_epoch()
                while self.epoch < self.epochs:
                    self._train_epoch(wrapped)
                    self._finish_epoch()
        if self.unreadable is not None and self.unreadable.num_replaced:
            self.say(self.unreadable.summary())
        return self

    # One epoch

    def _train_epoch(self, wrapped: nn.Module) -> None:
        self.sampler.start(self.epoch, first_batch=self.batch)
        self.mode.start(self.epoch)
        if self.batch == 0:
            self.log.start_epoch()
        self.log.data_wanted()
        last_saved = time.monotonic()
        for images, indices, unreadable in batches(self.loader):
            if self.unreadable is not None:
                self.unreadable.add(unreadable)
            self.log.data_ready()
            rate = learning_rate(
                self.optim, self.step, steps_per_epoch=self.sampler.num_batches, num_epochs=self.epochs
            )
            set_learning_rate(self.optimizer, rate)
            terms, features, labels = self._train_step(wrapped, images, indices)
            self.batch += 1
            self.log.step_done(terms, num_images=self.sampler.batch_size)
            if self.step % self.log_every == 0:
                progress = self.step / self.sampler.num_batches
                self.log.log_step(
                    features, labels, step=self.step, epoch=self.epoch, progress=progress, lr=rate
                )
            if self.batch < self.sampler.num_batches:  # the end of an epoch has its own
                reason = self.stop.requested()
                if reason is not None or time.monotonic() - last_saved > 60 * self.checkpoint_minutes:
                    self._save()
                    last_saved = time.monotonic()
                self._stop_if(reason)
            self.log.data_wanted()
        replaced = {}
        if self.unreadable is not None:
            replaced["images_replaced"] = self.unreadable.finish_epoch(self.device)
        self.log.log_epoch(step=self.step, epoch=self.epoch, **replaced)

    def _train_step(
        self, wrapped: nn.Module, images: Tensor, indices: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        inputs = normalize(images.to(self.device, non_blocking=True), self.model.mean, self.model.std)
        inputs = inputs.to(self.dtype, memory_format=self.memory_format)
        labels = distributed.gather_labels(self.labels[indices].to(self.device))
        with self.precision.autocast():
            try:
                # Dropout's draws depend on the step alone, so there is no generator state to save.
                seed = self.seed * 1_000_003 + self.step
                terms, features = wrapped(inputs, labels, self.epoch, seed)
            except DataError as error:  # a loss refuses embeddings that are not finite
                raise TrainingError(self._cannot_go_on(str(error))) from error
        total = sum(
            (o.weight * terms[name_of(o)] for o in self.objectives if name_of(o) in terms), torch.zeros(())
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(total)
        self._check_finite(total, terms)  # only now: a GPU has the backward pass to do while we wait
        self.precision.step(self.optimizer, clip_norm=self.optim.clip_norm)
        if self.average is not None:
            self.average.update(self.step + 1)
        return terms, features, labels

    def _check_finite(self, total: Tensor, terms: dict[str, Tensor]) -> None:
        if not torch.isfinite(total):
            shown = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise TrainingError(self._cannot_go_on(f"the loss is not finite ({shown})"))

    def _check_weights(self) -> None:
        """A finite loss may have gradients that are not; what they leave behind must not be kept."""
        for name, parameter in self.step_module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise TrainingError(self._cannot_go_on(f"weight {name!r} is not finite"))

    def _when_memory_is_full(self) -> str:
        return (
            f"Raise train.accumulate (now {self.accumulate}), which embeds the batch in smaller pieces, "
            f"lower sampler.identities_per_batch (now {self.sampler_settings['identities_per_batch']}), or "
            f"choose train.precision = 'bfloat16' (now {self.precision.name!r}); this makes another run, in "
            "a folder of its own"
        )

    def _cannot_go_on(self, reason: str) -> str:
        return (
            f"stopped at step {self.step} (epoch {self.epoch}): {reason}. The last good checkpoint of "
            f"{self.out} is kept. Try a lower optim.lr, a longer warm-up or optim.clip_norm, elsewhere"
        )

    def _finish_epoch(self) -> None:
        self._check_weights()
        self.epoch, self.batch = self.epoch + 1, 0
        last = self.epoch == self.epochs
        self.validation_due = bool(self.data.val) and (last or self.epoch % self.validate_every == 0)
        if self.validation_due:
            self._save()  # it takes long, and who takes the machine back may not wait
            self._stop_if(self.stop.requested())
        self._keep_epoch()

    def _keep_epoch(self) -> None:
        """Validate the epoch just trained where it is time to, and write its network."""
        with self.average.applied() if self.average else nullcontext():
            self._write_encoder()  # first: whatever becomes of the validation, it is there
            if self.validation_due:
                self._validate()
                self._write_encoder()  # its card names the best so far
        self.validation_due = False
        self._save()  # last: until the checkpoint says that this is done, it is done again
        self._stop_if(self.stop.requested())

    def _write_encoder(self) -> None:
        if distributed.is_main():
            self.encoder().save(self.out / "last.safetensors")

    def _stop_if(self, reason: BaseException | None) -> None:
        if reason is not None:
            self.say(f"asked to stop: saved after step {self.step}; the same command goes on from there")
            raise reason

    def _validate(self) -> None:
        """Score the held-out identities; keep the weights if they are the best so far."""
        encoder = self.encoder()
        features = embed_validation(encoder, self.data.val)
        if features is not None:
            scores = evaluate_features(*features)
            self._track("validation", **{"mAP": scores.mean_average_precision, "rank-1": scores.rank(1)})
            if scores.mean_average_precision > self.best.get("mAP", -1.0):
                self.best = {"mAP": scores.mean_average_precision, "epoch": self.epoch}
                encoder = self.encoder()  # its card names the new best
                source = f"{len(self.data.val)} validation images of {self.data.name}"
                with suppress(DataError):  # a single person has no pair of two
                    encoder.calibrate(fit_calibration(compare(*features), source=source))
                encoder.save(self.out / "best.safetensors")
        distributed.barrier()  # the main process evaluates alone

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
            bfloat16=self.precision.name == "bfloat16",
        )

    def _track(self, kind: str, **figures: Any) -> None:
        self.log.track(kind, figures, step=self.step, epoch=self.epoch)

    # The run folder

    def _open_run(self) -> nn.Module:
        """Go on with what the folder holds, or begin there; returns the module that takes the steps."""
        state = self.folder.stored_state()
        if state is not None:
            with self.folder.taking_up():
                self._restore(state)
        elif self.init:
            start_from(self.model, self.init, say=self.say)
        wrapped = distributed.data_parallel(self.step_module)
        if self.ema_decay:
            self.average = WeightAverage(self.model, decay=self.ema_decay)
            if state is not None:
                with self.folder.taking_up():
                    self.average.load_state_dict(state["average"])
        self.log.trackers = self.trackers
        if self.complete:
            return wrapped
        self.folder.describe(
            self.settings,
            data_root=self.data.root,
            validate_every=self.validate_every,
            configuration=self.configuration,
            epoch=self.epoch,
        )
        due = ("validation",) if self.validation_due else ()
        self.log.trackers = [*self.folder.trackers(last_step=self.step, due=due), *self.trackers]
        if state is None:
            for remark in self.remarks:
                self.say(remark)
            self._save()  # the first weights may be drawn without a seed; a run killed early keeps them
        return wrapped

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.step_module.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.precision.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{self.folder.checkpoint} does not fit this run: {error}") from error
        self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]
        self.log.load_state_dict(state)
        if self.unreadable is not None and state.get("unreadable"):
            self.unreadable.load_state_dict(state["unreadable"])
        self.validation_due = state.get("validation_due", False)
        if self.complete:
            self.say(f"{self.out}: training is complete ({counted(self.epochs, 'epoch')})")
        elif self.validation_due:
            self.say(f"going on with {self.out} at the validation after {counted(self.epoch, 'epoch')}")
        else:
            self.say(f"going on with {self.out} at epoch {self.epoch}, batch {self.batch}")

    def _save(self) -> None:
        self._check_weights()
        self.folder.save(
            {
                "epoch": self.epoch,
                "batch": self.batch,
                "validation_due": self.validation_due,
                "best": self.best,
                "num_processes": distributed.world_size(),
                "weights": self.step_module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.precision.scaler.state_dict(),
                "average": self.average.state_dict() if self.average else {},
                **self.log.state_dict(),
                "unreadable": self.unreadable.state_dict() if self.unreadable else {},
            }
        )

    # Putting the parts together

    def _prepare_network(self, *, compile: bool) -> None:
        if self.batch_norm == "synchronised":
            distributed.synchronise_batch_norm(self.model, self.device)
        self.dtype = next(self.model.parameters()).dtype
        self.step_module = Step(self.model, self.objectives, num_pieces=self.accumulate)
        self.step_module.to(self.device, self.dtype).to(memory_format=self.memory_format)
        self.mode = TrainingMode(
            self.model,
            freeze_statistics=self.batch_norm == "frozen",
            freeze_epochs=self.optim.freeze_epochs,
        )
        self.optimizer = build_optimizer(self.optim, [self.step_module])
        if compile:
            self.model.compile()
