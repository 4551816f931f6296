"""A saved model as an ONNX file, compared with PyTorch by onnxruntime."""

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.model import saved
from transfer.training import augment

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
INPUT, OUTPUT = "images", "probabilities"
SAYS = {
    INPUT: "float32 [batch, 3, size, size], RGB: short side resized to `resize` pixels (bilinear, "
    "antialiased), centre crop of `size`, divided by 255, less `mean`, divided by `std`",
    OUTPUT: "float32 [batch, classes], of `labels`, in order; they add up to 1",
}


class Classifier(nn.Module):
    """From normalised images to probabilities."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.model(images) / self.temperature).softmax(1)


def check_installed() -> None:
    """Raise UserError unless the extra `onnx` is there."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"--onnx: {missing[0]} is missing; pip install {' '.join(PACKAGES)}")


def export(model: nn.Module, card: saved.Card, images: torch.Tensor, path: str | Path) -> None:
    """Write the network, and the softmax of its outputs, with any number of images a batch; the
    card, and what goes in and out, are the file's metadata_props.

    `images`, uint8 [n, size, size, 3], are predicted by both. Raises UserError, and leaves no
    file, where probabilities are more than TOLERANCE apart or a class differs, or where PyTorch
    cannot export the network.
    """
    with files.replacing(path) as part:
        _write(Classifier(model, card.temperature).eval(), card, images[:2], part)
        expected = saved.probabilities(model, images, card.temperature)
        found = _run(part, images)
        apart = float(np.abs(found - expected).max())
        others = int((found.argmax(1) != expected.argmax(1)).sum())
        if not apart <= TOLERANCE or others:
            raise UserError(
                f"{path}: not written: onnxruntime's probabilities are up to {apart:.1e} from "
                f"PyTorch's, and {others} of {len(images)} test images get another class"
            )


def _write(network: nn.Module, card: saved.Card, images: torch.Tensor, path: Path) -> None:
    import onnx

    batch = torch.export.Dim("batch", min=1)
    # The exporter tells of what it leaves out of torchvision's own operators.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (augment.normalize(images),),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
        proto = program.model_proto
        onnx.helper.set_model_props(proto, card.metadata() | SAYS)
        onnx.save(proto, path)
    except Exception as error:  # whatever the exporter makes of a network that it cannot follow
        why = one_line(error)
        raise UserError(f"PyTorch cannot export {card.backbone} to ONNX: {why}") from None


def _run(path: Path, images: torch.Tensor) -> np.ndarray:
    """By batches of one and of the rest, so that the batch is seen to vary."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [part for part in (images[:1], images[1:]) if len(part)]
    inputs = [augment.normalize(part).numpy() for part in parts]
    return np.concatenate([session.run([OUTPUT], {INPUT: values})[0] for values in inputs])
