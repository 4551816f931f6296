"""Checks, before training, that `keep` can write its files and overwrites only its own."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from transfer.cli import UserError
from transfer.model import about

MARK = "which_transfer"
"""A key in the metadata of every saved network, in safetensors and ONNX files."""


def check(output: Path, onnx: Path | None, hub: Path | None) -> None:
    """Raise UserError for a wrong extension, for paths that collide or cannot be written, and for
    files that `keep` did not make and would overwrite."""
    page, picture = about.page_path(output), about.picture_path(output)
    for path, ending in ((output, ".safetensors"), (onnx, ".onnx")):
        if path and path.suffix != ending:
            raise UserError(f"{path}: give a name that ends in {ending}")
    written = [path for path in (output, page, picture, onnx) if path]
    for path in (*written, hub):
        if path:
            _check_place(path)
    for path in written:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise UserError(f"{path}: {kind}; give the name of a file")
        if hub and _within(path, hub):
            raise UserError(f"--hub: {hub} and {path} collide; give a new folder")
    _check_made_by_keep(output, _is_network(output))
    _check_made_by_keep(page, page.exists() and about.is_page(page, output))
    _check_made_by_keep(picture, output.exists() or page.exists())
    if onnx:
        _check_made_by_keep(onnx, _is_onnx(onnx))


def _check_place(path: Path) -> None:
    try:
        path.with_name(f".{path.name}.part").exists()  # the longest name that is written
        folder = next(parent for parent in path.absolute().parents if parent.exists())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', 'not a file name')}") from None
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "cannot be written to" if folder.is_dir() else "is not a folder"
        raise UserError(f"{path}: {folder} {problem}")


def _within(file: Path, folder: Path) -> bool:
    """Whether they are the same path, or one contains the other."""
    file, folder = file.resolve(), folder.resolve()
    return file.is_relative_to(folder) or folder.is_relative_to(file)


def _check_made_by_keep(path: Path, made: bool) -> None:
    if path.exists() and not made:
        raise UserError(
            f"{path}: `keep` did not make this file and would overwrite it; "
            "move it, or give another name as --output or --onnx"
        )


def _is_network(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with safe_open(path, "pt") as file:
            return MARK in (file.metadata() or {})
    except SafetensorError:
        return False


def _is_onnx(path: Path) -> bool:
    if not path.exists():
        return False
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return False
    return any(entry.key == MARK for entry in model.metadata_props)
