"""A run of the study trained again up to its chosen epoch, since runs keep no weights."""

import socket
import sys
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from transfer.cli import UserError
from transfer.evidence import scores
from transfer.evidence.calibration import Answers
from transfer.evidence.scores import Measure
from transfer.model import saved
from transfer.params import Params
from transfer.runs import PREDICTIONS, Run, all_runs
from transfer.training import models, predictions
from transfer.training.engine import Job, autocast
from transfer.training.predictions import Predictions
from transfer.training.record import Record, Time
from transfer.training.run import device_name, fit, prepare, watched

TOLERANCE = {"default": 1e-3, "float32": 1e-3, "bfloat16": 1e-2}
"""Confidences closer than this count as equal, by train.precision: two steps of the float16 that
stores them, or of bfloat16, in which a frozen run's head is computed here but not in the run."""


@dataclass(frozen=True)
class Original:
    """The run as the study trained it. measure: what its epochs are chosen by. by_seed: seed → part
    → predictions, of all trained runs of its setting and initial weights, itself included."""

    job: Job
    record: Record
    measure: Measure
    by_seed: dict[int, dict[str, Predictions]]

    @classmethod
    def load(cls, run: Run, study: Params) -> "Original":
        """Raises UserError if the run was not trained, or on other images or for another number of
        epochs than the study has now."""
        job, record = prepare(run, study), Record.load(run)
        if record.data != job.data.sha256 or job.data.size != study.pack.size:
            raise UserError(
                f"{run.name}: trained on other images than data/packed/{run.dataset} and "
                "params.yaml have; `dvc repro` first"
            )
        run.written(PREDICTIONS)
        seeds = {seed: run.model_copy(update={"seed": seed}) for seed in study.grid.seed}
        by_seed = {
            seed: predictions.load(other.folder / PREDICTIONS)
            for seed, other in seeds.items()
            if other.folder.is_dir()
        }
        if len(by_seed[run.seed]["test"].predicted) != job.settings.epochs:
            raise UserError(
                f"{run.name}: trained with another train.epochs than params.yaml's; "
                "`dvc repro` first"
            )
        measure = scores.measure(study.evidence.select_by, record.counts["train"])
        return cls(job, record, measure, by_seed)

    @property
    def run(self) -> Run:
        return self.job.run

    @property
    def epoch(self) -> int:
        """The chosen one, from 0."""
        return scores.chosen_epoch(self.by_seed[self.run.seed], self.measure)

    @property
    def validation(self) -> Answers:
        """The validation images' answers of all seeds, each at its chosen epoch."""
        return Answers.from_runs(list(self.by_seed.values()), "validation", self.measure)

    @property
    def own_validation(self) -> Answers:
        """Those of this run's seed alone."""
        return Answers.from_runs([self.by_seed[self.run.seed]], "validation", self.measure)

    @property
    def accuracies(self) -> dict[int, float]:
        """Seed → accuracy on the test images at the chosen epoch."""
        return {
            seed: float(parts["test"].right[scores.chosen_epoch(parts, self.measure)].mean())
            for seed, parts in self.by_seed.items()
        }

    @property
    def test_images(self) -> torch.Tensor:
        """Prepared, uint8 [m, size, size, 3]."""
        return self.job.data.prepared_images(len(self.job.data.validation))


def seconds(original: Original, study: Params) -> float | None:
    """How long training should take on this machine, by data/times of the slowest of the runs that
    compute the same; None if none of them ran here. The slowest, since frozen runs of a group share
    the features that one of them computed."""
    run, job = original.run, original.job
    alike = [
        other.time
        for other in all_runs(study.grid)
        if (other.group, other.freezing, other.init) == (run.group, run.freezing, run.init)
    ]
    times = [Time.read(path) for path in alike if path.is_file()]
    here = [time.images_per_second for time in times if time.host == socket.gethostname()]
    rate = min(here, default=0.0)
    return (original.epoch + 1) * job.images / rate if rate else None


def train(job: Job, epochs: int) -> nn.Module:
    """The network after that many epochs, in eval().

    Trains without stored features, since these do not hold the batch-norm statistics.
    """
    model = job.build(job.run.weights)
    name, head = models.head_name(model), models.head(model)
    # Training changes the network only when asked for another epoch.
    watched(job, epochs, islice(fit(job, model), epochs))
    model.set_submodule(name, head)  # a frozen run removes it
    models.merge_low_rank(model)
    models.check_finite(model.state_dict(), job.run.name)
    return model.eval()


def warn_if_different(original: Original, model: nn.Module, probabilities: np.ndarray) -> None:
    """Warn if the network predicts the test images, float32 [m, classes], differently from the run.

    A run in bfloat16 is compared in bfloat16, though `predict` computes in float32.
    """
    job, record = original.job, original.record
    if job.settings.precision == "bfloat16":
        with autocast(job.device, job.settings.precision):
            probabilities = saved.probabilities(model, original.test_images)
    test = original.by_seed[original.run.seed]["test"]
    other_class = test.predicted[original.epoch] != probabilities.argmax(1)
    confidence = test.confidence[original.epoch].astype(np.float32)
    apart = np.abs(confidence - probabilities.max(1)) > TOLERANCE[job.settings.precision]
    if not (count := int((other_class | apart).sum())):
        return
    print(
        f"warning: {count} of {len(probabilities)} test images are predicted differently from the "
        f"run, {int(other_class.sum())} of them as another class. The run was trained on "
        f"{record.device} with torch {record.versions['torch']}, this network on "
        f"{device_name(job.device)} with torch {torch.__version__}; rounding depends on the number "
        "of threads, too. The accuracy is this network's.",
        file=sys.stderr,
    )
