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
INPUT, NORMAL, OUTPUT = "images", "normal", "probabilities"
SAYS = {
    INPUT: "uint8 [batch, height, width, 3], RGB, of any size",
    OUTPUT: "float32 [batch, classes], of `labels`, in order; they add up to 1",
}


class Classifier(nn.Module):
    """From normalised images, float32 [n, 3, size, size], to probabilities."""

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
    """Write what `predict` does with an image once it is read: resizing, cropping, normalising, the
    network and the softmax, for any number of images of one size. The card, and what goes in and
    out, are the file's metadata_props.

    `images`, prepared, uint8 [n, size, size, 3], are predicted by both. Raises UserError, and
    leaves no file, where probabilities are more than TOLERANCE apart or a class differs, or where
    PyTorch cannot export the network.
    """
    with files.replacing(path) as part:
        _write(Classifier(model, card.temperature).eval(), card, images[:2], part)
        expected = saved.probabilities(model, images, card.temperature)
        found = _run(part, _framed(images, card.resize))
        check_equal(path, "onnxruntime's", found, expected)


def check_equal(path: str | Path, whose: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raise UserError where another program's probabilities, float32 [n, classes], are more than
    TOLERANCE from PyTorch's, or give another class."""
    apart = float(np.abs(found - expected).max())
    others = int((found.argmax(1) != expected.argmax(1)).sum())
    if not apart <= TOLERANCE or others:
        raise UserError(
            f"{path}: not written: {whose} probabilities are up to {apart:.1e} from PyTorch's, and "
            f"{others} of {len(found)} test images get another class"
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
                input_names=[NORMAL],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
        made = program.model_proto
        before = preparing(card, made.opset_import, made.ir_version)
        proto = onnx.compose.merge_models(before, made, io_map=[(NORMAL, NORMAL)])
        onnx.helper.set_model_props(proto, card.metadata() | SAYS)
        onnx.save(proto, path)
    except Exception as error:  # whatever the exporter makes of a network that it cannot follow
        why = one_line(error)
        raise UserError(f"PyTorch cannot export {card.backbone} to ONNX: {why}") from None


def preparing(card: saved.Card, opset: Any, version: int) -> Any:
    """packed.prepare and augment.normalize as a model, from INPUT to NORMAL. Resizing differs from
    Pillow's by one grey level in some pixels."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: Any, kind: type) -> Any:
        return numpy_helper.from_array(np.asarray(value, kind), name)

    scale = [[[1 / (255 * deviation)]] for deviation in card.std]
    shift = [[[-mean / deviation]] for mean, deviation in zip(card.mean, card.std, strict=True)]
    constants = [
        constant("resize", [card.resize], np.int64),
        constant("size", [card.size], np.int64),
        constant("sides_axes", [2, 3], np.int64),
        constant("half", 0.5, np.float32),
        constant("scale", scale, np.float32),
        constant("shift", shift, np.float32),
    ]
    bilinear = {"mode": "linear", "antialias": 1, "coordinate_transformation_mode": "half_pixel"}
    steps: list[tuple[str, str, str, dict[str, Any]]] = [
        ("Transpose", INPUT, "planes", {"perm": [0, 3, 1, 2]}),
        ("Shape", "planes", "shape", {}),
        ("Split", "shape", "outer sides", {"num_outputs": 2}),
        ("ReduceMin", "sides", "short", {"keepdims": 1}),
        ("Mul", "sides resize", "product", {}),
        ("Div", "product short", "scaled_sides", {}),
        ("Concat", "outer scaled_sides", "scaled_shape", {"axis": 0}),
        ("Resize", "planes   scaled_shape", "scaled_planes", bilinear),
        ("Sub", "scaled_sides size", "excess", {}),
        ("Cast", "excess", "excess_float", {"to": TensorProto.FLOAT}),
        ("Mul", "excess_float half", "middle", {}),
        ("Round", "middle", "start_float", {}),
        ("Cast", "start_float", "start", {"to": TensorProto.INT64}),
        ("Add", "start size", "end", {}),
        ("Slice", "scaled_planes start end sides_axes", "crop", {}),
        ("Cast", "crop", "crop_float", {"to": TensorProto.FLOAT}),
        ("Mul", "crop_float scale", "spread", {}),
        ("Add", "spread shift", NORMAL, {}),
    ]
    nodes = [
        helper.make_node(kind, given.split(" "), made.split(" "), **options)
        for kind, given, made, options in steps
    ]
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])
    shape = ["batch", 3, card.size, card.size]
    normal = helper.make_tensor_value_info(NORMAL, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "preparing", [image], [normal], constants)
    return helper.make_model(graph, opset_imports=opset, ir_version=version)


def _framed(images: torch.Tensor, side: int) -> np.ndarray:
    """In black frames, uint8 [n, side, side, 3], of which preparing leaves the images."""
    n, size, *_ = images.shape
    start = round((side - size) / 2)
    framed = np.zeros((n, side, side, 3), np.uint8)
    framed[:, start : start + size, start : start + size] = images
    return framed


def _run(path: Path, images: np.ndarray) -> np.ndarray:
    """By batches of one and of the rest, so that the batch is seen to vary."""
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    parts = [part for part in (images[:1], images[1:]) if len(part)]
    return np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])
