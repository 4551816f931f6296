"""What classes and images are called, and where they lie in data/split.

A class may have any name that a table or a folder can give it, so names are never paths: the
folders of classes are numbered, and a file beside them lists the names.
"""

from transfer.files import Stored

CLASSES = "classes.json"
"""The file that lists the classes, beside the parts of a data set."""


class Classes(Stored):
    """The names of a data set's classes, sorted. The images of each lie in a folder named by the
    class's place in this list, from 0."""

    names: list[str]


def named(label: str, file: str) -> str:
    """<class>/<file>, an image's name in all results. A file's name has no '/'."""
    return f"{label}/{file}"


def parted(name: str) -> tuple[str, str]:
    """The class and the file of the image with that name."""
    label, _, file = name.rpartition("/")
    return label, file
