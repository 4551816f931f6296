"""What classes and images are called, and where they lie in data/split.

A class's name may be anything that a table or a folder can say, so it never is a path: the folders
of classes are numbered, and the names stand in a file beside them.
"""

from transfer.files import Stored

CLASSES = "classes.json"
"""The file that holds them, beside the parts of a data set."""


class Classes(Stored):
    """The names of a data set's classes, sorted. The images of each lie in a folder that is called
    by its place here, from 0."""

    names: list[str]


def named(label: str, file: str) -> str:
    """<class>/<file>, by which every result names an image. A file's name has no '/'."""
    return f"{label}/{file}"


def parted(name: str) -> tuple[str, str]:
    """The class and the file of an image of that name."""
    label, _, file = name.rpartition("/")
    return label, file
