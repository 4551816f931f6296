"""Arithmetic that gives the same numbers on every x86-64 processor with AVX2, in one thread.

Libraries choose their kernels by the processor, and so round differently; training amplifies the
difference by about 10^5 in fifty steps. With `train.arithmetic: fixed` all take kernels that every
such processor has. They read most of these variables when they are loaded, so `stages` and
`python -m transfer` call `settle` before they import anything else.
"""

import os
from pathlib import Path

import yaml

from transfer.cli import UserError

FIXED = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # PyTorch's matrix products
    "NPY_ENABLE_CPU_FEATURES": "X86_V3",
    "OPENBLAS_CORETYPE": "Haswell",  # numpy's and scipy's matrix products
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def settle(path: str | Path = "params.yaml") -> None:
    """Set the variables if params.yaml asks for fixed arithmetic. A mistake in the file is left to
    params.load to report."""
    try:
        settings = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.CSafeLoader)
        fixed = settings["train"]["arithmetic"] == "fixed"
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return
    if fixed:
        os.environ |= FIXED


def apply(arithmetic: str, precision: str = "default", device: str = "cpu") -> str:
    """Set up PyTorch for train.arithmetic and train.precision on the device, cpu or cuda.

    Returns the instruction set or number format that it computes with, for Record.arithmetic.
    Raises UserError where the variables were set too late.
    """
    import torch

    if device == "cuda":
        # PyTorch's default for convolutions; its matrix products are in float32.
        torch.backends.cudnn.allow_tf32 = precision == "default"
        tf32 = precision == "default" and torch.cuda.is_tf32_supported()
        return "TF32" if tf32 else precision.replace("default", "float32")
    capability = torch.backends.cpu.get_cpu_capability()
    if arithmetic == "fast":
        return capability
    if any(os.environ.get(name) != value for name, value in FIXED.items()):
        raise UserError("train.arithmetic: fixed has to be in params.yaml when a command starts")
    # These choose their blocks by the sizes of caches, too.
    torch.backends.mkldnn.set_flags(False)
    torch.backends.nnpack.set_flags(False)
    torch.set_num_threads(1)
    return f"fixed {capability}"
