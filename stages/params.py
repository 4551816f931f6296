"""Check params.yaml before any stage starts.

Its output never changes, so an edit of params.yaml reruns this stage and those that read what
was edited, and no other.
"""

from transfer import cli, files, params
from transfer.training import models


def main() -> None:
    checked = params.load()
    models.check_backbones(checked.grid.backbone)
    files.write_text("data/params.ok", "params.yaml was checked\n")
    print(f"params.yaml: {checked.runs} runs")


if __name__ == "__main__":
    cli.run(main)
