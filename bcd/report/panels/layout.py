"""How pictures are put together: enlarged tiles in rows, titles above them, a legend below, and the PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from bcd.report.outputs import MADE_OF
from bcd.report.panels.colours import Mark

BACKGROUND = 225  # grey, so that errors along the frame stand out from the gaps
MIN_SIDE = 192  # images are enlarged by a whole factor until their longer side has this many pixels
GAP, HEADER, FONT_SIZE, SWATCH = 6, 22, 13, 12


def enlargement(shape: tuple[int, ...]) -> int:
    """By which whole factor pictures of images of this shape are enlarged."""
    return max(1, -(-MIN_SIDE // max(shape[:2])))


def enlarged(tile: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel as a square of `factor` x `factor` pixels."""
    return tile.repeat(factor, 0).repeat(factor, 1)


def in_a_row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    """Tiles of one height beside each other, each with a gap to its right and below it."""
    return np.concatenate([np.pad(t, ((0, GAP), (0, GAP), (0, 0)), constant_values=BACKGROUND) for t in tiles], 1)


def framed(rows: Sequence[np.ndarray], titles: Sequence[str], legend: Sequence[Mark]) -> np.ndarray:
    """Rows below each other, the titles of their tiles above and a legend below: uint8 (H, W, 3) RGB."""
    body = np.concatenate([_padded(row, max(r.shape[1] for r in rows)) for row in rows])
    heads = _headers(titles, rows[0].shape[1], body.shape[1])
    return np.concatenate([heads, body, _legend(legend, body.shape[1])])


def png(canvas: np.ndarray, made_of: str | None = None) -> bytes:
    """A uint8 (H, W, 3) RGB canvas as PNG, without times; `made_of` is kept as its text MADE_OF."""
    data, text = BytesIO(), PngInfo()
    if made_of is not None:
        text.add_text(MADE_OF, made_of)
    Image.fromarray(canvas).save(data, format="PNG", optimize=False, pnginfo=text)
    return data.getvalue()


def _padded(row: np.ndarray, width: int) -> np.ndarray:
    return np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=BACKGROUND)


def _headers(titles: Sequence[str], row_width: int, width: int) -> np.ndarray:
    canvas, draw = _blank(HEADER, width)
    for i, text in enumerate(titles):
        draw.text((i * (row_width // len(titles)), 3), text, fill="black", font=_font())
    return np.asarray(canvas)


def _legend(entries: Sequence[Mark], width: int) -> np.ndarray:
    """Swatch and name of each class and mark, in as many lines as they need."""
    lines, x, placed = 0, 0, []
    for name, colour in entries:
        advance = SWATCH + 4 + int(_font().getlength(name)) + 14
        if x and x + advance > width:
            lines, x = lines + 1, 0
        placed.append((name, colour, x, lines * HEADER + 4))
        x += advance
    canvas, draw = _blank((lines + 1) * HEADER, width)
    for name, colour, left, top in placed:
        draw.rectangle((left, top, left + SWATCH, top + SWATCH), fill=colour, outline="black")
        draw.text((left + SWATCH + 4, top - 1), name, fill="black", font=_font())
    return np.asarray(canvas)


def _blank(height: int, width: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    return canvas, ImageDraw.Draw(canvas)


def _font() -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(FONT_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)  # a size was asked for, which only these have
    return font
