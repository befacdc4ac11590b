"""Taking rows of pictures apart again."""

import numpy as np

from bcd.report.panels.layout import GAP


def tiles(canvas: np.ndarray, count: int, shape: tuple[int, int], factor: int) -> list[np.ndarray]:
    """The pictures of a row, at their own size."""
    height, width = shape[0] * factor, shape[1] * factor + GAP
    assert canvas.shape == (height + GAP, count * width, 3)
    return [canvas[:height:factor, i * width : (i + 1) * width - GAP : factor] for i in range(count)]
