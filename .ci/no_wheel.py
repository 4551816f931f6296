"""What pip and uv ask for a wheel."""

import sys


def build_wheel(*_: object) -> None:
    """There is none: a study is its whole folder, with dvc.yaml, params.yaml and results."""
    sys.exit(
        "error: this is a study and no package: clone it, `pip install -r requirements.txt`, and "
        "run `python -m transfer` in the clone"
    )


build_editable = build_sdist = get_requires_for_build_wheel = build_wheel
get_requires_for_build_editable = get_requires_for_build_sdist = build_wheel
