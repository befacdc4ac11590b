"""Images as a model is shown them, and the real ones that an export is measured and calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bcd.config.schema.data import TRAIN
from bcd.config.schema.exports import CALIBRATION
from bcd.data.semantic.split import evenly_spaced
from bcd.data.semantic.transforms import evaluated_size, normalise, resize_linear, resize_pair
from bcd.errors import UserError
from bcd.export.finished import Finished
from bcd.export.sidecar import View
from bcd.runs.spec import DetectionEvaluation, SegmentationEvaluation

PARITY_IMAGES = 4


@dataclass(frozen=True)
class Images:
    """Images of a split: `read(i)` gives uint8 (H, W, 3) RGB and a name, for i below `count`."""

    count: int
    read: Callable[[int], tuple[np.ndarray, str]]


def images_of(run: Finished, split: str) -> Images:
    """The images of a split of the run's dataset, resized as the dataset says; raises UserError where they lack."""
    training = run.spec.training
    if training.task == "semantic":
        from bcd.data.semantic.split import open_split

        maps = open_split(run.root, training.data, split)
        return Images(len(maps), lambda i: (maps.read(i)[0], maps.read(i)[2]))
    from bcd.data.objects.split import open_objects

    objects = open_objects(run.root, training.data, split, masks=False)
    return Images(len(objects), lambda i: (objects.read(i)[0], objects.read(i)[2]))


def view_of(run: Finished, images: Images | None) -> View:
    """How the run's images are shown; height and width are a window's, else those of the first of `images`.

    images: None for a model that takes every size.
    """
    data, evaluation = run.spec.training.data, run.evaluation
    view = View(
        mean=data.mean,
        std=data.std,
        read_size=data.size,
        resize=evaluation.resize,
        pad=evaluation.pad if isinstance(evaluation, DetectionEvaluation) else None,
        sliding=evaluation.sliding if isinstance(evaluation, SegmentationEvaluation) else None,
        height=0,
        width=0,
    )
    if images is None:
        return view
    if view.sliding:
        height, width = view.sliding.crop
    else:
        height, width = batch([shown(images.read(0)[0], view)], view).shape[2:]
    return view.model_copy(update={"height": height, "width": width})


def shown(image: np.ndarray, view: View) -> np.ndarray:
    """An image uint8 (H, W, 3) at the size at which evaluation shows it, a detector's padded with its mean colour."""
    if view.read_size:
        height, width = view.read_size
        image = resize_pair(image, image[..., 0], (height, width))[0]
    if view.pad is None:
        return resize_linear(image, evaluated_size(_size(image), view.resize)) if view.resize else image
    from bcd.data.objects.transforms import resized

    assert view.resize is not None  # every detector has one
    return resized(image, evaluated_size(_size(image), view.resize))


def batch(images: Sequence[np.ndarray], view: View) -> np.ndarray:
    """Images of one size as an input, float32 (N, 3, H, W), padded where the view pads."""
    planes = np.stack([normalise(image, view.mean, view.std) for image in images])
    if view.pad is None:
        return planes
    rest = [(-side) % view.pad for side in planes.shape[2:]]
    return np.pad(planes, ((0, 0), (0, 0), (0, rest[0]), (0, rest[1])))


def inputs(images: Images, view: View, chosen: Sequence[int], size: tuple[int, int]) -> list[np.ndarray]:
    """Inputs float32 (1, 3, *size) of the chosen images: a window from the middle where evaluation slides one."""
    return [entering(_window(shown(images.read(i)[0], view), view, size), view, size)[0] for i in chosen]


def entering(image: np.ndarray, view: View, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """An image, as it is `shown`, as an input float32 (1, 3, *size), and the height and width of its part of it.

    A segmentor's is resized to `size`. A detector's keeps its shape: it shrinks until there is room, and is padded.
    """
    height, width = _size(image)
    if view.pad is None:
        return batch([image if (height, width) == size else resize_linear(image, size)], view), size
    factor = min(1.0, size[0] / height, size[1] / width)
    if factor < 1:
        image = resize_linear(image, (max(1, int(factor * height)), max(1, int(factor * width))))
    planes = normalise(image, view.mean, view.std)[None]
    rest = [(0, side - own) for side, own in zip(size, planes.shape[2:], strict=True)]
    return np.pad(planes, ((0, 0), (0, 0), *rest)), _size(image)


def _window(image: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    top, left = ((own - side) // 2 for own, side in zip(_size(image), size, strict=True))
    return image[top : top + size[0], left : left + size[1]] if view.sliding and min(top, left) >= 0 else image


def parity_images(images: Images) -> list[int]:
    """The images that runtime and PyTorch are compared on, evenly spaced over the split."""
    return evenly_spaced(images.count, min(PARITY_IMAGES, images.count))


def calibration_images(images: Images, wanted: int | None, seed: int) -> list[int]:
    """Training images drawn without replacement; raises UserError when more are asked for than there are."""
    if wanted is not None and wanted > images.count:
        raise UserError(
            f"calibration {wanted}: the split '{TRAIN}' has {images.count} images; ask for {images.count} or fewer"
        )
    count = min(CALIBRATION, images.count) if wanted is None else wanted
    return sorted(np.random.default_rng(seed).permutation(images.count)[:count].tolist())


def _size(image: np.ndarray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
