"""The files that `keep` writes, checked before anything is trained."""

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from transfer.cli import UserError
from transfer.model import about

MARK = "which_transfer"
"""What the metadata of a kept network has, as safetensors and as ONNX."""


def check(output: Path, onnx: Path | None, hub: Path | None) -> None:
    """Raise UserError for names that end otherwise than what they hold, that stand in each other's
    way or cannot be written, and for files that `keep` did not make and that would be lost."""
    page, picture = about.beside(output)
    for path, ending in ((output, ".safetensors"), (onnx, ".onnx")):
        if path and path.suffix != ending:
            raise UserError(f"{path}: give a name that ends in {ending}")
    written = [path for path in (output, page, picture, onnx) if path]
    for path in (*written, hub):
        if path:
            _check_place(path)
    for path in written:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no plain file"
            raise UserError(f"{path}: {kind}; give the name of a file")
        if hub and _within(path, hub):
            raise UserError(f"--hub: {hub} and {path} are in each other's way; give a new folder")
    own = {output: _is_network, page: lambda path: about.is_of(path, output)}
    own |= {picture: lambda _: output.exists() or page.exists()}
    own |= {onnx: _is_onnx} if onnx else {}
    _check_own(own)


def _check_place(path: Path) -> None:
    try:
        path.with_name(f".{path.name}.part").exists()  # the longest name that is made of it
        folder = next(one for one in path.absolute().parents if one.exists())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', 'no name of a file')}") from None
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        kind = "cannot be written to" if folder.is_dir() else "is no folder"
        raise UserError(f"{path}: {folder} {kind}")


def _within(file: Path, folder: Path) -> bool:
    """Whether one is the other, or in it."""
    one, other = file.resolve(), folder.resolve()
    return one.is_relative_to(other) or other.is_relative_to(one)


def _check_own(own: dict[Path, Callable[[Path], bool]]) -> None:
    for path, is_own in own.items():
        if path.is_file() and not is_own(path):
            raise UserError(
                f"{path}: `keep` did not make this file and would overwrite it; "
                "move it, or give another name as --output or --onnx"
            )


def _is_network(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return MARK in (file.metadata() or {})
    except SafetensorError:
        return False


def _is_onnx(path: Path) -> bool:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        found = onnx.load(path, load_external_data=False)
    except DecodeError:
        return False
    return any(one.key == MARK for one in found.metadata_props)
