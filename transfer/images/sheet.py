"""A contact sheet of the drawn study: its source and its targets, in their quadrants."""

from PIL import Image, ImageDraw, ImageFont

from transfer.images import draw
from transfer.params import Draw

SOURCE = "things"
# Heading and place, column and row, of each target. Small and large are as params.yaml comes.
QUADRANTS = {
    "hearts_drops": ("Small, similar", 0, 0),
    "arrows_bolts": ("Large, similar", 1, 0),
    "scans": ("Small, different", 0, 1),
    "cells": ("Large, different", 1, 1),
}

# The contact sheet's measures, pixels.
THUMB, PITCH, SHOWN = 80, 84, 4
MARGIN, SIDE, GUTTER = 24, 82, 24
HALF = SIDE + SHOWN * PITCH + GUTTER
TARGETS_TOP, TARGET_HEIGHT = 476, 262
WIDTH, HEIGHT = 2 * MARGIN + 2 * HALF - GUTTER, TARGETS_TOP + 2 * TARGET_HEIGHT - 12
INK, QUIET, PAPER = "#1f2328", "#59636e", "#ffffff"


def contact_sheet(drawn: dict[str, Draw]) -> Image.Image:
    """The source, one image a class, above the targets in their quadrants."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    if SOURCE in drawn:
        _head(sheet, 0, MARGIN, "Source", SOURCE, drawn[SOURCE])
        for column in (0, 1):
            shapes = list(draw.SHAPES)[column * SHOWN : (column + 1) * SHOWN]
            rows = {
                texture: [
                    draw.picture(drawn[SOURCE], SOURCE, f"{shape}_{texture}", 0) for shape in shapes
                ]
                for texture in draw.TEXTURES
            }
            _rows(sheet, column, MARGIN + 82, rows)
            _titles(sheet, column, MARGIN + 73, shapes)
    for dataset, (heading, column, row) in QUADRANTS.items():
        if dataset in drawn:
            y = TARGETS_TOP + row * TARGET_HEIGHT
            rows = {
                name: [draw.picture(drawn[dataset], dataset, name, index) for index in range(SHOWN)]
                for name in draw.painters(dataset)
            }
            _head(sheet, column, y, heading, dataset, drawn[dataset])
            _rows(sheet, column, y + 58, rows)
    return sheet


def _head(
    sheet: Image.Image, column: int, y: int, heading: str, dataset: str, settings: Draw
) -> None:
    _text(sheet, (_left(column), y), heading, 20, INK, "la")
    detail = f"{dataset}: {len(draw.painters(dataset))} classes of {settings.images} images"
    _text(sheet, (_left(column), y + 27), detail, 15, QUIET, "la")


def _titles(sheet: Image.Image, column: int, y: int, titles: list[str]) -> None:
    for i, title in enumerate(titles):
        _text(sheet, (_left(column) + i * PITCH + THUMB // 2, y), title, 14, INK, "ms")


def _rows(sheet: Image.Image, column: int, y: int, rows: dict[str, list[Image.Image]]) -> None:
    """Rows of thumbnails, their labels to the left of them."""
    for label, images in rows.items():
        _text(sheet, (_left(column) - 12, y + THUMB // 2), label.replace("_", " "), 14, INK, "rm")
        for i, image in enumerate(images):
            # Nearest shows the pixels as they are; their last two bits would cost 70 kB.
            thumb = image.resize((THUMB, THUMB), Image.Resampling.NEAREST)
            thumb = thumb.point(lambda value: value & 0xFC)
            sheet.paste(thumb, (_left(column) + i * PITCH, y))
        y += PITCH


def _left(column: int) -> int:
    """Where a half's thumbnails start."""
    return MARGIN + SIDE + column * HALF


def _text(
    sheet: Image.Image, place: tuple[int, int], text: str, size: int, colour: str, anchor: str
) -> None:
    font = ImageFont.load_default(size)
    ImageDraw.Draw(sheet).text(place, text, fill=colour, font=font, anchor=anchor)
