"""A backbone's starting weights: torchvision's, checked by hash, or a local file."""

import shutil
from pathlib import Path
from urllib.error import URLError

import torch

from transfer import cli, files, params
from transfer.training import models


def put(backbone: str, weights: params.Weights, target: Path) -> None:
    """Write the checkpoint to `target`, unless it is there already. Raises UserError for weights
    that cannot be had, have another hash, or do not fit the backbone."""
    with files.replacing(target) as part:
        if target.is_file() and files.sha256(target).startswith(weights.sha256):
            shutil.copyfile(target, part)  # fetched before, by other code
        elif weights.published:
            fetch(backbone, weights, part)
        else:
            copy(backbone, weights, part)
        state = models.load_checkpoint(part, weights.source)
        models.check_fits(state, backbone, weights.source)


def fetch(backbone: str, weights: params.Weights, out: Path) -> None:
    """Download torchvision's checkpoint. Raises UserError where that fails."""
    from torchvision.models import get_model_weights

    published = {weights.name: weights for weights in get_model_weights(backbone)}
    if weights.source not in published:
        raise cli.UserError(
            f"params.yaml: weights.{backbone}.source: torchvision has no {weights.source}, only "
            f"{', '.join(published)}; or give the path of a file, with a slash or a dot in it"
        )
    url = published[weights.source].url
    try:
        torch.hub.download_url_to_file(url, str(out), weights.sha256)
    except RuntimeError:
        raise cli.UserError(
            f"{url}: its sha256 does not start with weights.{backbone}.sha256, {weights.sha256}; "
            "the download is broken or params.yaml is wrong"
        ) from None
    except (URLError, TimeoutError, ConnectionError) as error:
        raise cli.UserError(
            f"{url}: {getattr(error, 'reason', error)}; fetch it by other means and set "
            f"weights.{backbone}.source in params.yaml to the file"
        ) from None


def copy(backbone: str, weights: params.Weights, out: Path) -> None:
    """Take a local file. Raises UserError if it is missing or has another hash."""
    source = Path(weights.source).expanduser()
    if not source.is_file():
        raise cli.UserError(f"{source}: no such weights file; check weights.{backbone}.source")
    digest = files.sha256(source)
    if not digest.startswith(weights.sha256):
        raise cli.UserError(
            f"{source}: its sha256 is {digest}, and weights.{backbone}.sha256 in params.yaml says "
            f"{weights.sha256}"
        )
    shutil.copyfile(source, out)
