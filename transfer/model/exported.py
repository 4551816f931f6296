"""A saved model as an ONNX file, compared with PyTorch by onnxruntime."""

import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.images.fit import FILL, THIN, prepare
from transfer.model import saved

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-4
SHAPES = (1, 1), (1.01, 1.3), (0.3, 0.2), (0.1, 0.9), (6, 1.1), (1, 2.7), (2.3, 3.1)
"""Widths and heights that are compared besides the images' own, in multiples of card.resize."""
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


def export(
    model: nn.Module, card: saved.Card, images: Sequence[np.ndarray], path: str | Path
) -> None:
    """Write what `predict` does with an image once it is read: resizing, cropping, normalising, the
    network and the softmax, for any number of images of one size. The card, and what goes in and
    out, are the file's metadata_props.

    `images`, uint8 [height, width, 3] of any sizes, and some of them in SHAPES, are predicted by
    both. Raises UserError, and leaves no file, where a prepared pixel is more than one grey level
    from Pillow's, where probabilities of equal pixels are more than TOLERANCE apart or a class
    differs, or where PyTorch cannot export the network.
    """
    images = [*images, *_shaped(images, card.resize)]
    side = card.resize if card.fit == "crop" else card.size
    with files.replacing(path) as part:
        opset = _write(Classifier(model, card.temperature).eval(), card, part)
        pixels = _prepared(images, card, opset)
        check_pixels(path, pixels, images, card)
        expected = saved.probabilities(model, torch.from_numpy(pixels), card.temperature)
        session = _session(str(part))
        alone = [_run(session, OUTPUT, image[None]) for image in images]
        together = _run(session, OUTPUT, _framed(torch.from_numpy(pixels), side))
        probabilities = np.concatenate([*alone, together])
        check_equal(path, "onnxruntime's", probabilities, np.concatenate([expected, expected]))


def check_pixels(
    path: str | Path, found: np.ndarray, images: Sequence[np.ndarray], card: saved.Card
) -> None:
    """Raise UserError where prepared pixels, uint8 [n, size, size, 3], are more than one grey level
    from those that Pillow prepares of the images."""
    for pixels, image in zip(found, images, strict=True):
        expected = prepare(Image.fromarray(image), card.resize, card.size, card.fit)
        if (most := int(np.abs(pixels.astype(int) - expected).max())) > 1:
            raise UserError(
                f"{path}: not written: an image of {image.shape[1]} × {image.shape[0]} pixels is "
                f"resized otherwise than by Pillow, by up to {most} grey levels"
            )


def check_equal(path: str | Path, whose: str, found: np.ndarray, expected: np.ndarray) -> None:
    """Raise UserError where another program's probabilities, float32 [n, classes], are more than
    TOLERANCE from PyTorch's, or give another class."""
    apart = float(np.abs(found - expected).max())
    others = int((found.argmax(1) != expected.argmax(1)).sum())
    if not apart <= TOLERANCE or others:
        raise UserError(
            f"{path}: not written: {whose} probabilities are up to {apart:.1e} from PyTorch's, and "
            f"{others} of {len(found)} answers are another class"
        )


def _write(network: nn.Module, card: saved.Card, path: Path) -> tuple[Any, int]:
    """Returns the operators' versions, and the format's."""
    import onnx

    batch = torch.export.Dim("batch", min=1)
    # The exporter tells of what it leaves out of torchvision's own operators.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                (torch.zeros(2, 3, card.size, card.size),),
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
        return made.opset_import, made.ir_version
    except Exception as error:  # whatever the exporter makes of a network that it cannot follow
        why = one_line(error)
        raise UserError(f"PyTorch cannot export {card.backbone} to ONNX: {why}") from None


Step = tuple[str, str, str, dict[str, Any]]
"""An operator, its inputs and outputs by name, and its attributes."""
BILINEAR = {
    "mode": "linear",
    "antialias": 1,
    "coordinate_transformation_mode": "half_pixel",
    "exclude_outside": 1,  # else the edge counts for what lies beyond it, unlike Pillow's
}


def preparing(card: saved.Card, opset: Any, version: int) -> Any:
    """fit.prepare, to one grey level, and loader.normalize as a model, from INPUT to NORMAL."""
    from onnx import TensorProto, helper, numpy_helper

    constants: dict[str, tuple[Any, type]] = {
        "resize": ([card.resize], np.int64),
        "size": ([card.size], np.int64),
        "square": ([card.size, card.size], np.int64),
        "double_size": ([card.size], np.float64),
        "thin": ([THIN], np.int64),
        "zero": ([0], np.int64),
        "one": ([1], np.int64),
        "two": ([2], np.int64),
        "four": ([4], np.int64),
        "sides_axes": ([2, 3], np.int64),
        "half": (0.5, np.float32),
        "fill": (np.reshape(FILL, (3, 1, 1)), np.float32),
        "scale": ([[[1 / (255 * deviation)]] for deviation in card.std], np.float32),
        "shift": ([[[-m / d]] for m, d in zip(card.mean, card.std, strict=True)], np.float32),
    }
    steps: list[Step] = [
        ("Transpose", INPUT, "planes", {"perm": [0, 3, 1, 2]}),
        ("Shape", "planes", "shape", {}),
        ("Split", "shape", "outer sides", {"num_outputs": 2}),
        *_fitting(card.fit, TensorProto),
        ("Mul", "fitted scale", "spread", {}),
        ("Add", "spread shift", NORMAL, {}),
    ]
    nodes = [
        helper.make_node(kind, given.split(" "), made.split(" "), **options)
        for kind, given, made, options in steps
    ]
    used = {name for _, given, _, _ in steps for name in given.split(" ")}
    arrays = [
        numpy_helper.from_array(np.asarray(value, kind), name)
        for name, (value, kind) in constants.items()
        if name in used
    ]
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", "height", "width", 3])
    shape = ["batch", 3, card.size, card.size]
    normal = helper.make_tensor_value_info(NORMAL, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "preparing", [image], [normal], arrays)
    return helper.make_model(graph, opset_imports=opset, ir_version=version)


def _fitting(fit: str, types: Any) -> list[Step]:
    """From `planes`, whose `shape` is `outer` and `sides`, to `fitted`, in floats."""
    resized: list[Step] = [
        ("Concat", "outer scaled_sides", "scaled_shape", {"axis": 0}),
        ("Resize", "planes   scaled_shape", "scaled_planes", BILINEAR),
    ]
    if fit == "squash":
        return [
            ("Identity", "square", "scaled_sides", {}),
            *resized,
            ("Cast", "scaled_planes", "fitted", {"to": types.FLOAT}),
        ]
    if fit == "pad":
        return [
            ("ReduceMax", "sides", "long", {"keepdims": 1}),
            ("Cast", "long", "double_long", {"to": types.DOUBLE}),
            ("Cast", "sides", "double_sides", {"to": types.DOUBLE}),
            ("Div", "double_long double_size", "ratio", {}),
            ("Div", "double_sides ratio", "exact_sides", {}),
            ("Round", "exact_sides", "round_sides", {}),
            ("Cast", "round_sides", "whole_sides", {"to": types.INT64}),
            ("Max", "whole_sides one", "scaled_sides", {}),
            *resized,
            ("Sub", "size scaled_sides", "missing", {}),
            ("Div", "missing two", "before", {}),
            ("Sub", "missing before", "after", {}),
            ("Concat", "before after", "borders", {"axis": 0}),
            ("Cast", "scaled_planes", "scaled_float", {"to": types.FLOAT}),
            # Pad takes one value for all channels.
            ("Sub", "scaled_float fill", "around_fill", {}),
            ("Pad", "around_fill borders  sides_axes", "padded", {}),
            ("Add", "padded fill", "fitted", {}),
        ]
    return [
        ("ReduceMin", "sides", "short", {"keepdims": 1}),
        *_shortening(),
        ("Mul", "sides_left resize", "product", {}),
        ("Div", "product short", "scaled_sides", {}),
        ("Concat", "outer scaled_sides", "scaled_shape", {"axis": 0}),
        ("Resize", "planes_left   scaled_shape", "scaled_planes", BILINEAR),
        ("Sub", "scaled_sides size", "excess", {}),
        ("Cast", "excess", "excess_float", {"to": types.FLOAT}),
        ("Mul", "excess_float half", "middle", {}),
        ("Round", "middle", "start_float", {}),
        ("Cast", "start_float", "start", {"to": types.INT64}),
        ("Add", "start size", "end", {}),
        ("Slice", "scaled_planes start end sides_axes", "crop", {}),
        ("Cast", "crop", "fitted", {"to": types.FLOAT}),
    ]


def _shortening() -> list[Step]:
    """As fit._shortened, from `planes` to `planes_left`, of which the height and width are
    `sides_left`."""
    return [
        ("Mul", "short thin", "longest", {}),
        ("Sub", "sides longest", "too_long", {}),
        ("Mul", "short four", "four_shorts", {}),
        ("Div", "too_long four_shorts", "parts", {}),
        ("Max", "parts zero", "whole_parts", {}),
        ("Mul", "whole_parts two", "even_parts", {}),
        ("Mul", "even_parts short", "cut_start", {}),
        ("Sub", "sides cut_start", "cut_end", {}),
        ("Slice", "planes cut_start cut_end sides_axes", "planes_left", {}),
        ("Sub", "cut_end cut_start", "sides_left", {}),
    ]


def _framed(images: torch.Tensor, side: int) -> np.ndarray:
    """In black frames, uint8 [n, side, side, 3], of which preparing leaves the images."""
    n, size, *_ = images.shape
    start = round((side - size) / 2)
    framed = np.zeros((n, side, side, 3), np.uint8)
    framed[:, start : start + size, start : start + size] = images
    return framed


def _shaped(images: Sequence[np.ndarray], side: int) -> list[np.ndarray]:
    """The first images, each in another of the SHAPES."""
    sizes = [
        (max(1, round(width * side)), max(1, round(height * side))) for width, height in SHAPES
    ]
    return [
        np.asarray(Image.fromarray(image).resize(size))
        for image, size in zip(cycle(images), sizes, strict=False)
    ]


def _prepared(images: Sequence[np.ndarray], card: saved.Card, versions: tuple[Any, int]) -> Any:
    """By `preparing`, uint8 [n, size, size, 3]."""
    session = _session(preparing(card, *versions).SerializeToString())
    normal = np.concatenate([_run(session, NORMAL, image[None]) for image in images])
    values = normal.transpose(0, 2, 3, 1) * np.array(card.std) + np.array(card.mean)
    return (values * 255).round().astype(np.uint8)


def _session(model: str | bytes) -> Any:
    from onnxruntime import InferenceSession

    return InferenceSession(model, providers=["CPUExecutionProvider"])


def _run(session: Any, output: str, images: np.ndarray) -> np.ndarray:
    return session.run([output], {INPUT: images})[0]
