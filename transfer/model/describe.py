"""The card of a network that is to be saved: its origin, its accuracy and its thresholds."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from transfer import commands, files
from transfer.evidence import calibration, stats
from transfer.images.packed import Packed
from transfer.model import out_of_distribution, saved
from transfer.model.out_of_distribution import FeatureDistribution
from transfer.model.retrain import Original
from transfer.params import Params
from transfer.runs import Run
from transfer.training import models
from transfer.training.loader import CHUNK
from transfer.training.run import device_name, versions


@dataclass(frozen=True)
class Risk:
    """The error rate above which `predict` is unsure. guarantee: whether other images are to keep
    it with a probability of 95 %."""

    rate: float
    guarantee: bool

    @property
    def needs(self) -> str:
        """How many validation images a guarantee takes."""
        if not self.rate:
            return "no number of images can show that there is no error"
        fewest = calibration.fewest(self.rate)
        return f"it takes {fewest} validation images without an error, or more"


def card(
    original: Original,
    study: Params,
    probabilities: np.ndarray,
    risk: Risk,
    ood_distance: float | None,
    start_needed: bool,
) -> saved.Card:
    """probabilities: of the test images, float32 [m, classes]. Temperature and confidence threshold
    come from the validation images of all seeds, but a threshold with a guarantee from those of the
    run's own seed."""
    run, data, job, start = original.run, original.job.data, original.job, original.run.weights
    accuracy = float((probabilities.argmax(1) == data.test.label).mean())
    low, high = stats.wilson(accuracy, len(probabilities))
    validation = original.validation
    temperature = calibration.fit(validation)
    judged = (original.own_validation if risk.guarantee else validation).at(temperature)
    return saved.Card(
        backbone=run.backbone,
        labels=data.classes,
        decoding=data.decoding,
        resize=data.resize,
        size=data.size,
        fit=data.fit,
        activation=job.settings.activation,
        pooling=job.settings.pooling,
        run=run.name,
        seed=run.seed,
        epoch=original.epoch,
        accuracy=accuracy,
        low=low,
        high=high,
        n=len(probabilities),
        temperature=temperature,
        risk=risk.rate,
        guarantee=risk.guarantee,
        confidence_threshold=calibration.confidence_threshold(judged, risk.rate, risk.guarantee),
        ood_distance=ood_distance,
        start=start.as_posix(),
        start_sha256=files.sha256(start),
        start_source=public_source(run, study),
        start_needed=start_needed,
        data_sha256=data.sha256,
        versions=versions(run.backbone),
        device=device_name(job.device),
        commit=commands.commit(),
    )


def ood_distance(model: nn.Module, data: Packed, distribution: FeatureDistribution) -> float | None:
    """The card's, from the validation images of the run's own seed, since features differ between
    seeds."""
    if not (count := len(data.validation)):
        return None
    _, features = saved.outputs(model, data.prepared_images(0, count))
    return out_of_distribution.ood_distance(distribution.distances(features))


def feature_distribution(model: nn.Module, data: Packed) -> FeatureDistribution:
    """Of the training images, prepared as test images are."""
    indices, features = out_of_distribution.sample(len(data.train)), []
    for start in range(0, len(indices), CHUNK):
        chunk = indices[start : start + CHUNK]
        images = np.stack([data.prepared_image(data.train, int(i)) for i in chunk])
        features.append(saved.outputs(model, torch.from_numpy(images))[1])
    return FeatureDistribution.fit(np.concatenate(features))


def public_source(run: Run, study: Params) -> str:
    """Where anyone can find the starting checkpoint; '' for a local file."""
    source = study.weights.get(run.backbone) if run.init == "pretrained" else None
    library = "timm" if models.is_timms(run.backbone) else "torchvision"
    return f"{library}'s {source.source}" if source and source.published else ""
