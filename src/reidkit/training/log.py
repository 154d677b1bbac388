"""What a training run tells: records for its trackers, and advice where a loss no longer teaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reidkit import logs, ops
from reidkit.models import Embedder
from reidkit.training import distributed
from reidkit.training.health import LossHealth
from reidkit.training.objective import Objective, feature_of, name_of, reads
from reidkit.training.trackers import Meter, Tracker, close_tracker, peak_memory, record_text

logger = logs.get_logger(__name__)


class TrainingLog:
    """Records and advice of one run; the main process alone tells them.

    Args:
        model, objectives: of the run.
        num_epochs: of the run.
        device: where it computes.

    Attributes:
        trackers: called with every record.
    """

    def __init__(
        self,
        model: Embedder,
        objectives: Sequence[Objective],
        *,
        num_epochs: int,
        device: torch.device,
    ) -> None:
        self.model, self.objectives = model, objectives
        self.num_epochs, self.device = num_epochs, device
        self.trackers: Sequence[Tracker] = ()
        self.health = LossHealth()
        self.start_epoch()

    def start_epoch(self) -> None:
        """Means count from here."""
        self._interval, self._whole_epoch = Meter(), Meter()

    def data_wanted(self) -> None:
        """From now on training waits for data."""
        for meter in (self._interval, self._whole_epoch):
            meter.data_wanted()

    def data_ready(self) -> None:
        for meter in (self._interval, self._whole_epoch):
            meter.data_ready()

    def step_done(self, terms: dict[str, Tensor], *, num_images: int) -> None:
        for meter in (self._interval, self._whole_epoch):
            meter.step_done(terms, num_images=num_images)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is stopped here needs to log on as if it had not been, as plain values."""
        meters = {"interval": self._interval.state_dict(), "whole_epoch": self._whole_epoch.state_dict()}
        return {"health": self.health.state_dict(), "meters": meters}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint; earlier versions kept no meters, or nothing."""
        if "health" in state:
            self.health.load_state_dict(state["health"])
        if "meters" in state:
            self._interval.load_state_dict(state["meters"]["interval"])
            self._whole_epoch.load_state_dict(state["meters"]["whole_epoch"])

    def track(self, kind: str, figures: dict[str, Any], *, step: int, epoch: int) -> None:
        """Give a record to the trackers; of an epoch and a validation, tell what it holds."""
        record = {"kind": kind, **figures, "step": step, "epoch": epoch}
        if distributed.is_main():
            for tracker in self.trackers:
                tracker(record)
        if (text := record_text(record, num_epochs=self.num_epochs)) is not None:
            logger.info(text)

    def close(self) -> None:
        """Call when training ends."""
        if distributed.is_main():
            for tracker in self.trackers:
                close_tracker(tracker)

    def log_epoch(self, *, step: int, epoch: int, **figures: Any) -> None:
        """The record of a whole epoch."""
        means = self._whole_epoch.read()
        self.track("epoch", {**means, **peak_memory(self.device), **figures}, step=step, epoch=epoch)

    def log_step(
        self,
        features: dict[str, Tensor],
        labels: Tensor,
        *,
        step: int,
        epoch: int,
        **figures: float,
    ) -> None:
        """The record of the steps since the last one, with statistics of the last batch, and advice."""
        means = self._interval.read()
        metric = [o for o in self.objectives if o.counts_in(epoch) and reads(o.loss) == "metric"]
        metric.sort(
            key=lambda o: _margin(o) == 0
        )  # margin violations are counted for a loss that has a margin
        batch = self._batch_statistics(metric[0], features, labels) if metric else {}
        figures |= {
            **means,
            **peak_memory(self.device),
            **{f"batch/{name}": value for name, value in batch.items()},
        }
        self.track("step", figures, step=step, epoch=epoch)
        counting = [o for o in self.objectives if f"loss/{name_of(o)}" in means]
        signs = self.health.signs(
            {name_of(o): o.weight_in(epoch) * means[f"loss/{name_of(o)}"] for o in counting},
            margins={
                name_of(o): weight * margin
                for o in metric
                if (margin := _margin(o)) * (weight := o.weight_in(epoch)) > 0
            },
            batch=batch,
        )
        for sign in signs:
            logger.warning(f"step {step}: {sign}")
        self._interval = Meter()

    def _batch_statistics(
        self, objective: Objective, features: dict[str, Tensor], labels: Tensor
    ) -> dict[str, Any]:
        return ops.batch_statistics(
            features[feature_of(self.model, objective)].detach(),
            labels,
            margin=getattr(objective.loss, "margin", None),
            normalize=getattr(objective.loss, "normalize", True),
        ).as_dict()


def _margin(objective: Objective) -> float:
    """0 where there is none, or a soft one."""
    margin = getattr(objective.loss, "margin", None)
    return float(margin) if isinstance(margin, (int, float)) else 0.0
