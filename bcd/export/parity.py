"""Whether an exported file says what PyTorch says: the gate of every export."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bcd.errors import UserError
from bcd.export.graph import Graph
from bcd.export.runtime import Opened, torch_call
from bcd.export.sidecar import Parity

LIMIT = 1e-3  # of a logit; runtimes add in another order, which costs some 1e-5


def other_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Heights and widths that a dynamic file is tried at beside its own: none is a multiple of a stride."""
    return [(3 * height // 4 + 1, 5 * width // 4 + 1), (5 * height // 4 + 3, 3 * width // 4 + 3)]


def compare(opened: Opened, graph: Graph, inputs: Sequence[np.ndarray], names: Sequence[str], *, gate: bool) -> Parity:
    """How far the file is from PyTorch on these inputs, float32 (1, 3, H, W), and on a batch of two.

    names: of the images. gate: refuse a difference above LIMIT in a logit.

    Raises UserError when the gate refuses, or an output is not finite.
    """
    reference = torch_call(graph.module)
    largest, changed, decided = 0.0, 0, 0
    for images in (*inputs, np.concatenate([inputs[0], inputs[0][..., ::-1]])):
        theirs, ours = opened.run(images), dict(zip(graph.outputs, reference(images), strict=True))
        for name, output in ours.items():
            difference = _largest(theirs[name], output, opened.name)
            largest = max(largest, difference)
        changed += int((_classes(theirs[graph.outputs[0]]) != _classes(ours[graph.outputs[0]])).sum())
        decided += _classes(ours[graph.outputs[0]]).size
    if gate and largest > LIMIT:
        raise UserError(
            f"{opened.name}: differs from PyTorch by {largest:.3g} in a logit, more than {LIMIT:g}, so it was not "
            "written; try another --opset or --format, or leave --dynamic out"
        )
    sizes = sorted({(image.shape[2], image.shape[3]) for image in inputs})
    return Parity(
        images=list(names),
        sizes=[list(size) for size in sizes],
        largest=largest,
        changed=changed / decided,
        limit=LIMIT if gate else None,
    )


def _largest(theirs: np.ndarray, ours: np.ndarray, name: str) -> float:
    if theirs.shape != ours.shape:
        raise UserError(f"{name}: gives {theirs.shape} where PyTorch gives {ours.shape}; choose another --format")
    difference = np.abs(theirs.astype(np.float64) - ours)
    if not np.isfinite(difference).all():
        raise UserError(f"{name}: its outputs are not finite; choose another --format, or train the run again")
    return float(difference.max(initial=0.0))


def _classes(logits: np.ndarray) -> np.ndarray:
    """The class at each place: of a segmentor's logits (N, C, H, W), or a detector's (N, A, C)."""
    return logits.argmax(1 if logits.ndim == 4 else 2)
