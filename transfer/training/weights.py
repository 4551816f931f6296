"""A backbone's pretrained weights, checked by hash: torchvision's, timm's, or a local file."""

import shutil
from pathlib import Path
from urllib.error import URLError

import torch

from transfer import cli, files, params
from transfer.training import models, zoo


def put(backbone: str, weights: params.Weights, target: Path) -> models.State:
    """Write the checkpoint to `target`, and return it. Raises UserError for weights that cannot be
    read or fetched, have another hash, or do not fit the backbone."""
    models.check_backbones([backbone])
    with files.replacing(target) as part:
        if models.is_timms(backbone):
            file = _of_timm(backbone, weights) if weights.published else _local(backbone, weights)
            tag = weights.source if weights.published else ""
            state = zoo.convert(backbone, tag, models.load_checkpoint(file), weights.source)
            torch.save(state, part)
        else:
            _put(backbone, weights, target, part)
            state = models.load_checkpoint(part, weights.source)
        models.check_fits(state, backbone, weights.source)
        return state


def _put(backbone: str, weights: params.Weights, target: Path, part: Path) -> None:
    if target.is_file() and files.sha256(target) == weights.sha256:
        shutil.copyfile(target, part)  # an edit of the code fetches nothing again
    elif weights.published:
        fetch(backbone, weights, part)
    else:
        file = _local(backbone, weights)
        if file.suffix == ".safetensors":
            torch.save(models.load_checkpoint(file), part)
        else:
            shutil.copyfile(file, part)


def fetch(backbone: str, weights: params.Weights, out: Path) -> None:
    """Download torchvision's checkpoint. Raises UserError where that fails."""
    from torchvision.models import get_model_weights

    published = {weights.name: weights for weights in get_model_weights(backbone)}
    _check_published(backbone, weights, "torchvision", list(published))
    url = published[weights.source].url
    try:
        torch.hub.download_url_to_file(url, str(out))
    except (URLError, TimeoutError, ConnectionError) as error:
        raise cli.UserError(
            f"{url}: {getattr(error, 'reason', error)}; fetch it by other means and set "
            f"weights.{backbone}.source in params.yaml to the file"
        ) from None
    _checked(backbone, weights, out, url)


def _of_timm(backbone: str, weights: params.Weights) -> Path:
    _check_published(backbone, weights, "timm", zoo.tags(backbone))
    return _checked(backbone, weights, zoo.fetch(backbone, weights.source))


def _check_published(
    backbone: str, weights: params.Weights, library: str, known: list[str]
) -> None:
    if weights.source not in known:
        raise cli.UserError(
            f"params.yaml: weights.{backbone}.source: {library} has no {weights.source}, only "
            f"{', '.join(known)}; or give the path of a file, with a slash or a dot in it"
        )


def _local(backbone: str, weights: params.Weights) -> Path:
    source = Path(weights.source).expanduser()
    if not source.is_file():
        raise cli.UserError(f"{source}: no such weights file; check weights.{backbone}.source")
    return _checked(backbone, weights, source)


def _checked(backbone: str, weights: params.Weights, file: Path, name: str = "") -> Path:
    digest = files.sha256(file)
    if digest != weights.sha256:
        raise cli.UserError(
            f"{name or file}: its sha256 is {digest}, and weights.{backbone}.sha256 in params.yaml "
            f"says {weights.sha256}"
        )
    return file
