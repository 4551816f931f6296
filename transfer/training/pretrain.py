"""A backbone trained on a source set of the study, to stand in for ImageNet weights."""

import torch

from transfer import arithmetic
from transfer.images import packed
from transfer.params import Component, Pretrain, Train
from transfer.runs import DEFAULT, Run
from transfer.training import loader, models, run_cache
from transfer.training.components import OWN
from transfer.training.engine import Checkpoint, Job, finetune, write
from transfer.training.run import watched

PAPER = Train(
    epochs=25,
    batch_size=4,
    optimizer=Component("Adam"),
    schedule=Component("StepLR", {"step_size": 7, "gamma": 0.1}),
    warmup_epochs=0,
    layer_decay=1.0,
    clip_norm=0.0,
    average_epochs=0,
    loss=Component("CrossEntropyLoss"),
    class_weights="none",
    activation=Component(OWN),
    pooling=Component(OWN),
    augmentation=loader.PAPER,
    probe_epochs=1,
    frozen_batchnorm="train",
    device="cpu",
    arithmetic="fast",
    memory_format="contiguous",
    precision="default",
    cuda_graph=False,
    keep_features=False,
)
"""The paper's protocol (section 3.3)."""


def pretrain(backbone: str, given: Pretrain, numbers: str) -> None:
    """Write data/weights/<backbone>-pretrained.pth, and the empty checkpoint of a baseline beside
    it; goes on from a checkpoint if there is one. numbers: train.arithmetic. Raises UserError as
    models.build does."""
    run = Run(
        dataset=given.source,
        images="all",
        backbone=backbone,
        lr=given.lr,
        freezing="finetuned",
        recipe=DEFAULT,
        init="scratch",
        seed=given.seed,
    )
    changes = {name: getattr(given, name) for name in ("epochs", "batch_size", "schedule")}
    settings = PAPER.model_copy(update=changes)
    models.save_scratch(run.weights)
    data = packed.load(f"data/packed/{run.dataset}", run.seed)
    job = Job(run, settings, data, torch.device("cpu"), arithmetic.apply(numbers))
    depends = {"settings": settings.model_dump(mode="json"), "arithmetic": job.arithmetic}
    key = run_cache.fingerprint("stages.pretrain", run_cache.inputs(run), run=run.name, **depends)
    checkpoint = Checkpoint(f"data/checkpoints/pretrain-{backbone}.pt", key, every=10)
    model = job.build(run.weights)
    results = watched(job, settings.epochs, finetune(job, model, checkpoint))
    write(f"data/weights/{backbone}-pretrained.pth", model.state_dict())
    checkpoint.remove()
    accuracy = results[-1].epoch.test_accuracy
    print(f"pretrain {backbone}: accuracy {accuracy:.3f} on {len(data.classes)} source classes")
