"""The training loop: draw a batch, embed it, sum the losses, step; validate, save, go on.

Everything random is a function of (seed, epoch, batch), so that a run that was interrupted anywhere and
started again ends with the same weights, bit for bit on one thread, as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidkit import logs
from reidkit.analysis.calibration import fit_calibration
from reidkit.config import OptimConfig, SamplerConfig, TrainConfig, TransformConfig, schedule_problems
from reidkit.config.tables import table_given, with_keys
from reidkit.encoders.devices import default_device, full_memory_explained
from reidkit.encoders.encoder import Encoder
from reidkit.errors import CheckpointError, ConfigError, DataError, TrainingError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.models import Embedder
from reidkit.provenance import data_fingerprint, versions
from reidkit.texts.printable import counted
from reidkit.training import distributed
from reidkit.training.batches import build_loader, build_sampler, check_batches, class_labels, sets_of_classes
from reidkit.training.ema import WeightAverage
from reidkit.training.embed_validation import check_validation, embed_validation
from reidkit.training.interrupt import GracefulStop
from reidkit.training.learner import Learner, NotFiniteError
from reidkit.training.loader import UnreadableImages, batches
from reidkit.training.log import TrainingLog
from reidkit.training.objective import Objective, prepare_objectives
from reidkit.training.optim import described, learning_rate
from reidkit.training.run_folder import RunFolder
from reidkit.training.trackers import Tracker, named_tracker
from reidkit.training.warm_start import start_from
from reidkit.types import Dataset

logger = logs.get_logger(__name__)


class Trainer:
    """Trains a model on the ``train`` part of a data set and keeps the whole run in one folder.

    The folder holds ``run.json`` (settings, versions, data), ``metrics.jsonl``, ``last.ckpt`` and
    ``previous.ckpt`` (to resume from), ``last.safetensors`` and, if the data set has a ``val`` part,
    ``best.safetensors`` (highest validation mAP). :meth:`fit` resumes a run that the folder holds already.

    Messages go to ``logging.getLogger("reidkit")``, and to standard error if the program has not set up
    logging (:mod:`reidkit.logs`).

    Args:
        model: the network, from :func:`reidkit.build_model`.
        data: the data set, from :func:`reidkit.load_dataset`.
        losses: losses or :class:`Objective`; a bare loss has weight 1 and the model's usual feature.
        out: the run folder.
        seed: of batches and augmentation. The model's weights are drawn when it is built.
        sampler, transform, optim, train: the tables of a configuration (:mod:`reidkit.config.tables` says
            what each key changes).
        device: a GPU where there is one.
        trackers: called with every record, like those that ``train`` names.
        configuration: text kept as ``config.toml`` in the run folder.
        options: single keys of ``sampler`` and ``train``, as ``epochs=60, identities_per_batch=16``.

    The signature is long because the tables already group what belongs together; the rest has no group.

    Raises:
        ConfigError: settings that cannot be used together or with this data.
        DataError: an empty training part, or a validation part in which no query has a match.
    """

    def __init__(
        self,
        model: Embedder,
        data: Dataset,
        losses: Sequence[nn.Module | Objective],
        *,
        out: str | Path,
        seed: int = 0,
        sampler: SamplerConfig | None = None,
        transform: TransformConfig | None = None,
        optim: OptimConfig | None = None,
        train: TrainConfig | None = None,
        device: str | torch.device | None = None,
        trackers: Sequence[Tracker] = (),
        configuration: str | None = None,
        **options: Any,
    ) -> None:
        logs.show_by_default()
        self.sampler_config, self.train_config = with_keys(
            table_given("sampler", sampler, SamplerConfig), table_given("train", train, TrainConfig), options
        )
        self.transform = table_given("transform", transform, TransformConfig)
        self.optim = table_given("optim", optim, OptimConfig)
        if not data.train:
            raise DataError(f"data set {data.name!r} at {data.place} has no training images")
        if data.val:
            check_validation(data)
        self.epochs = self.train_config.epochs
        if problems := schedule_problems(self.optim, self.epochs):
            raise ConfigError(problems)
        self.device = torch.device(device or default_device())
        self.model, self.data, self.out, self.seed = model, data, Path(out), seed
        self.trackers = [*(named_tracker(name, self.out) for name in self.train_config.trackers), *trackers]
        self.configuration = configuration
        model.check_image_size(self.transform.height, self.transform.width)
        self.fingerprint = data_fingerprint(data)
        self._prepare_batches(losses)
        self.learner = Learner(
            model,
            self.objectives,
            optim=self.optim,
            train=self.train_config,
            device=self.device,
            image_size=(self.transform.height, self.transform.width),
        )
        self.folder = RunFolder(self.out)
        self.epoch = self.batch = 0  # the next batch to train on
        self.validation_due = False  # of the epoch before
        self.best: dict[str, float] = {}
        self.average: WeightAverage | None = None
        self.log = TrainingLog(model, self.objectives, num_epochs=self.epochs, device=self.device)

    def _prepare_batches(self, losses: Sequence[nn.Module | Objective]) -> None:
        """Set up sampler, losses and loader; refuse settings that cannot be combined."""
        classes = class_labels(self.data.train)
        self.labels = torch.from_numpy(classes)
        num_identities, train = int(classes.max()) + 1, self.train_config
        self.objectives = prepare_objectives(
            losses, self.model, num_epochs=self.epochs, num_identities=num_identities, seed=self.seed
        )
        for objective in self.objectives:
            for loss in objective.loss.modules():
                if fill := getattr(loss, "fill_sets", None):
                    fill(sets_of_classes(self.data, classes))
        self.sampler = build_sampler(self.data, classes, self.sampler_config, seed=self.seed)
        self.remarks = check_batches(self.sampler, self.data, classes, self.objectives, train)
        self.stop = GracefulStop()
        self.unreadable = UnreadableImages(self.data.train) if train.unreadable == "skip" else None
        self.loader = build_loader(
            self.data,
            self.sampler,
            self.transform,
            train,
            mean=self.model.mean,
            prepare_worker=self.stop.for_workers(),
            pin_memory=self.device.type == "cuda",
        )

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
            "sampler": dataclasses.asdict(self.sampler_config),
            "transform": dataclasses.asdict(self.transform),
            "optim": described(self.optim),
            "init": self.train_config.init,
            "precision": self.learner.precision.name,
            "accumulate": self.train_config.accumulate,
            "batch_norm": self.train_config.batch_norm,
            "ema_decay": self.train_config.ema_decay,
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
                "train.validate_every": self.train_config.validate_every,
                "train.unreadable": self.train_config.unreadable,
            }
        )
        remedy = self.learner.when_memory_is_full(self.sampler_config.identities_per_batch)
        with self._failures_explained(), self.folder.held(self.settings), closing(self.log):
            wrapped = self._open_run()
            with self.stop, full_memory_explained(self.device, remedy):
                if self.validation_due:
                    self._keep_epoch()
                while self.epoch < self.epochs:
                    self._train_epoch(wrapped)
                    self._finish_epoch()
        if self.unreadable is not None and self.unreadable.num_replaced:
            logger.warning(self.unreadable.summary())
        return self

    def _train_epoch(self, wrapped: nn.Module) -> None:
        self.sampler.start(self.epoch, first_batch=self.batch)
        self.learner.mode.start(self.epoch)
        if self.batch == 0:
            self.log.start_epoch()
        self.log.data_wanted()
        last_saved, longest = time.monotonic(), 60 * self.train_config.checkpoint_minutes
        for images, indices, unreadable in batches(self.loader):
            if self.unreadable is not None:
                self.unreadable.add(unreadable)
            self.log.data_ready()
            rate = learning_rate(
                self.optim, self.step, steps_per_epoch=self.sampler.num_batches, num_epochs=self.epochs
            )
            terms, features, labels = self._train_step(wrapped, images, indices, rate)
            self.batch += 1
            self.log.step_done(terms, num_images=self.sampler.batch_size)
            if self.learner.gradients:
                progress = self.step / self.sampler.num_batches
                figures = {**self.learner.gradients, "progress": progress}
                self.log.track("gradients", figures, step=self.step, epoch=self.epoch)
            if self.step % self.train_config.log_every == 0:
                progress = self.step / self.sampler.num_batches
                self.log.log_step(
                    features, labels, step=self.step, epoch=self.epoch, progress=progress, lr=rate
                )
            if self.batch < self.sampler.num_batches:  # the end of an epoch has its own
                reason = self.stop.requested()
                if reason is not None or time.monotonic() - last_saved > longest:
                    self._save()
                    last_saved = time.monotonic()
                self._stop_if(reason)
            self.log.data_wanted()
        replaced = {}
        if self.unreadable is not None:
            replaced["images_replaced"] = self.unreadable.finish_epoch(self.device)
        self.log.log_epoch(step=self.step, epoch=self.epoch, **replaced)

    def _train_step(
        self, wrapped: nn.Module, images: Tensor, indices: Tensor, rate: float
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        # Dropout's draws depend on the step alone, so there is no generator state to save.
        seed = self.seed * 1_000_003 + self.step
        every = self.train_config.gradients_every
        found = self.learner.step(
            wrapped,
            images,
            self.labels[indices],
            epoch=self.epoch,
            seed=seed,
            rate=rate,
            measure=every > 0 and (self.step + 1) % every == 0,
        )
        if self.average is not None:
            self.average.update(self.step + 1)
        return found

    @contextmanager
    def _failures_explained(self) -> Iterator[None]:
        try:
            with distributed.failures_explained():
                yield
        except NotFiniteError as error:
            raise TrainingError(
                f"stopped at step {self.step} (epoch {self.epoch}): {error}. The last good checkpoint of "
                f"{self.out} is kept. Try a lower optim.lr, a longer warm-up or optim.clip_norm, elsewhere"
            ) from error

    def _finish_epoch(self) -> None:
        self.learner.check_weights()
        self.epoch, self.batch = self.epoch + 1, 0
        its_turn = self.epoch % self.train_config.validate_every == 0 or self.epoch == self.epochs
        self.validation_due = bool(self.data.val) and its_turn
        if self.validation_due:
            self._save()  # validation takes long, and a cluster that stops the job may not wait
            self._stop_if(self.stop.requested())
        self._keep_epoch()

    def _keep_epoch(self) -> None:
        """Validate the epoch just trained where it is time to, and write its network."""
        with self.average.applied() if self.average else nullcontext():
            self._write_encoder()  # saved first, in case validation fails
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
            logger.info(f"asked to stop: saved after step {self.step}; the same command goes on from there")
            raise reason

    def _validate(self) -> None:
        """Score the held-out identities; keep the weights if they are the best so far."""
        encoder = self.encoder()
        features = embed_validation(encoder, self.data.val)
        if features is not None:
            evaluation = evaluate_features(*features)
            figures = {"mAP": evaluation.mean_average_precision, "rank-1": evaluation.rank(1)}
            self.log.track("validation", figures, step=self.step, epoch=self.epoch)
            if evaluation.mean_average_precision > self.best.get("mAP", -1.0):
                self.best = {"mAP": evaluation.mean_average_precision, "epoch": self.epoch}
                encoder = self.encoder()  # its card names the new best
                source = f"{len(self.data.val)} validation images of {self.data.name}"
                with suppress(DataError):  # one identity has no negative pair
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
            bfloat16=self.learner.precision.name == "bfloat16",
        )

    # The run folder

    def _open_run(self) -> nn.Module:
        """Go on with what the folder holds, or begin there; returns the module that takes the steps."""
        state = self.folder.stored_state()
        if state is not None:
            with self.folder.taking_up():
                self._restore(state)
        elif self.train_config.init:
            start_from(self.model, self.train_config.init)
        wrapped = distributed.data_parallel(self.learner.module)
        if self.train_config.ema_decay:
            self.average = WeightAverage(self.model, decay=self.train_config.ema_decay)
            if state is not None:
                with self.folder.taking_up():
                    self.average.load_state_dict(state["average"])
        self.log.trackers = self.trackers
        if self.complete:
            return wrapped
        self.folder.describe(
            self.settings,
            data_root=self.data.root,
            validate_every=self.train_config.validate_every,
            configuration=self.configuration,
            epoch=self.epoch,
        )
        due = ("validation",) if self.validation_due else ()
        self.log.trackers = [*self.folder.trackers(last_step=self.step, due=due), *self.trackers]
        if state is None:
            for remark in self.remarks:
                logger.warning(remark)
            self._save()  # the first weights may be drawn without a seed; a run killed early keeps them
        return wrapped

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{self.folder.checkpoint} does not fit this run: {error}") from error
        self.epoch, self.batch, self.best = state["epoch"], state["batch"], state["best"]
        self.log.load_state_dict(state)
        if self.unreadable is not None and state.get("unreadable"):
            self.unreadable.load_state_dict(state["unreadable"])
        self.validation_due = state.get("validation_due", False)
        if self.complete:
            logger.info(f"{self.out}: training is complete ({counted(self.epochs, 'epoch')})")
        elif self.validation_due:
            logger.info(f"going on with {self.out} at the validation after {counted(self.epoch, 'epoch')}")
        else:
            logger.info(f"going on with {self.out} at epoch {self.epoch}, batch {self.batch}")

    def _save(self) -> None:
        self.learner.check_weights()
        self.folder.save(
            {
                "epoch": self.epoch,
                "batch": self.batch,
                "validation_due": self.validation_due,
                "best": self.best,
                "num_processes": distributed.world_size(),
                **self.learner.state_dict(),
                "average": self.average.state_dict() if self.average else {},
                **self.log.state_dict(),
                "unreadable": self.unreadable.state_dict() if self.unreadable else {},
            }
        )
