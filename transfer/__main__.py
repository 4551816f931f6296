"""The front door: `python -m transfer VERB …`."""

import sys
from importlib import import_module

from transfer import arithmetic, cli

VERBS = {
    "own": ("own.enter", "enter your own images in params.yaml, for `dvc repro` to train on"),
    "run": ("cluster.run", "train many runs in parallel, on this machine or a Ray cluster"),
    "watch": ("cluster.watch", "show all runs in one table while they are trained"),
    "keep": ("model.keep", "save the network of a data set's recommended run in one file"),
    "predict": ("model.predict", "classify images with a saved network"),
    "accept": ("accept", "after an edit that changes no result, train a few runs instead of all"),
    "review": ("review.comment", "summarise for a pull request how a change affects the study"),
}
USAGE = "\n".join(
    [
        "usage: python -m transfer VERB …   (VERB --help says more)\n",
        *(f"  {verb:8} {words}" for verb, (_, words) in VERBS.items()),
    ]
)


def main() -> None:
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(USAGE)
    elif verb not in VERBS:
        sys.exit(f"error: no verb {verb!r}\n{USAGE}")
    else:
        del sys.argv[1]
        arithmetic.settle()
        import_module(f"transfer.{VERBS[verb][0]}").main()


if __name__ == "__main__":
    cli.run(main)
