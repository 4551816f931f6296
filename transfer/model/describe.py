"""The card of a network that is to be saved: its origin, its accuracy and its thresholds."""

from typing import Any

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


def card(original: Original, study: Params, probabilities: np.ndarray, **fields: Any) -> saved.Card:
    """probabilities: float32 [m, classes], of the test images. fields: the card's others, those of
    `thresholds` and start_needed."""
    run, data, job, start = original.run, original.job.data, original.job, original.run.weights
    accuracy = float((probabilities.argmax(1) == data.test.label).mean())
    low, high = stats.wilson(accuracy, len(probabilities))
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
        start=start.as_posix(),
        start_sha256=files.sha256(start),
        start_source=public_source(run, study),
        data_sha256=data.sha256,
        versions=versions(run.backbone),
        device=device_name(job.device),
        commit=commands.commit(),
        **fields,
    )


def thresholds(
    original: Original,
    model: nn.Module,
    distribution: FeatureDistribution,
    risk: float,
    guarantee: bool,
) -> dict[str, Any]:
    """The card's fields that say when to trust an answer. Temperature and confidence threshold come
    from the validation images of all seeds; a threshold with a guarantee, and the distance, which
    depends on this network's features, from those of its own seed."""
    validation = original.validation
    temperature = calibration.fit(validation)
    ood_distance = None
    if count := len(original.job.data.validation):
        _, features = saved.outputs(model, original.job.data.prepared_images(0, count))
        ood_distance = out_of_distribution.ood_distance(distribution.distances(features))
    judged = (original.own_validation if guarantee else validation).at(temperature)
    threshold = calibration.confidence_threshold(judged, risk, guarantee)
    return {
        "temperature": temperature,
        "risk": risk,
        "guarantee": guarantee,
        "confidence_threshold": threshold,
        "ood_distance": ood_distance,
    }


def enough(risk: float) -> str:
    """How many validation images a guarantee of that error rate takes."""
    if not risk:
        return "no number of images can show that there is no error"
    return f"it takes {calibration.fewest(risk)} validation images without an error, or more"


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
