"""Write to data/code/STAGE a hash of the code that each stage imports.

After an edit of code that a stage imports, that stage runs again. Comments, docstrings and layout
do not count.
"""

from pathlib import Path

from transfer import cli, code, files


def main() -> None:
    cli.arguments("code", __doc__)
    scripts = sorted(path.stem for path in Path("stages").glob("[!_]*.py"))
    with files.replacing("data/code") as folder:
        folder.mkdir()
        for script in scripts:
            (folder / script).write_text(code.recorded(script, Path.cwd()))


if __name__ == "__main__":
    cli.run(main)
