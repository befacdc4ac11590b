"""Batches of images with objects, for training and evaluating detectors.

As in `bcd.data.semantic.stream`, a training batch is a pure function of the seed and its step. Images keep their shape:
they are resized by their short side, maybe flipped, and padded to a common size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bcd.config.schema.recipes import Resize
from bcd.data.loading import load
from bcd.data.objects.split import Read
from bcd.data.objects.transforms import moved_objects, resized
from bcd.data.semantic.stream import LABELLED, VIEW, check_share, generator, pick
from bcd.data.semantic.transforms import Size, evaluated_size, new_size, normalise
from bcd.errors import UserError
from bcd.models.detection.detector import Regions, Targets

# image (N, 3, H, W), sizes in it, original sizes, names
EvalBatch = tuple[Tensor, list[Size], list[Size], list[str]]


@dataclass(frozen=True)
class ObjectBatch:
    """One training batch of N images, all of them labelled.

    image          float32 (N, 3, H, W), normalised; zeros below and to the right of an image's real part
    sizes          height and width of each real part
    targets        what there is to find in each image, in pixels of `image`
    valid          bool (N, H, W), the real parts
    names          N names, for messages
    labelled       N
    regions        where a teacher proposes objects, once it was asked
    region_classes int64 (R,), the class of each region of all images in turn, K = background
    """

    image: Tensor
    sizes: list[Size]
    targets: list[Targets]
    valid: Tensor
    names: list[str]
    labelled: int
    regions: Regions | None = None
    region_classes: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ObjectBatch":
        """The batch with its tensors on `device`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        def move_any(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else move(tensor)

        regions = self.regions
        if regions is not None:
            index = None if regions.index is None else [move(each) for each in regions.index]
            regions = Regions([move(each) for each in regions.boxes], index, regions.anchors)
        return replace(
            self,
            image=move(self.image),
            targets=[Targets(move(t.boxes), move(t.classes), move_any(t.masks)) for t in self.targets],
            valid=move(self.valid),
            regions=regions,
            region_classes=move_any(self.region_classes),
        )

    def labelled_part(self) -> "ObjectBatch":
        """The batch as the detector's own losses see it: all images, without a teacher's regions."""
        return replace(self, regions=None, region_classes=None)

    def facts(self) -> dict[str, Tensor | list[Tensor] | None]:
        """What distillation terms may know of the batch, see `bcd.distill.terms.WeightedTerms.forward`.

        `boxes` are fractions of the padded width and height, since that is what a feature map shows.
        """
        height, width = self.image.shape[-2:]
        whole = self.image.new_tensor((width, height, width, height))
        return {
            "valid": self.valid,
            "label": None,
            "boxes": [target.boxes / whole for target in self.targets],
            "region_label": self.region_classes,
        }


class Row(NamedTuple):
    """A resized and normalised image (3, h, w), its targets as arrays (boxes, classes, masks or None), its name."""

    image: np.ndarray
    targets: tuple[np.ndarray, np.ndarray, np.ndarray | None]
    name: str


class EvalRow(NamedTuple):
    """A resized and normalised image (3, h, w), its size before, its name."""

    image: np.ndarray
    original: Size
    name: str


@dataclass(frozen=True)
class ObjectSteps:
    """Map-style dataset for one rank: step number to ObjectBatch. See `object_stream` for the fields."""

    read: Read
    indices: Sequence[int]
    batch: int
    seed: int
    resize: Resize
    flip: float
    masks: bool
    mean: Sequence[float]
    std: Sequence[float]
    pad: int
    rank: int
    world: int

    def __getitem__(self, step: int) -> ObjectBatch | UserError:
        try:
            rows = [self.row(p) for p in range(step * self.batch + self.rank, (step + 1) * self.batch, self.world)]
        except UserError as error:
            return error
        image, valid, sizes = padded([row.image for row in rows], self.pad)
        height, width = image.shape[-2:]
        targets = [as_targets(*row.targets, (height, width)) for row in rows]
        return ObjectBatch(image, sizes, targets, valid, [row.name for row in rows], len(rows))

    def row(self, position: int) -> Row:
        image, objects, name = self.read(pick(self.indices, self.seed, LABELLED, position))
        rng = generator(self.seed, VIEW, LABELLED, position)
        short_side = self.resize.short_sides[rng.integers(len(self.resize.short_sides))]
        height, width = image.shape[:2]
        size = new_size((height, width), short_side, self.resize.max_long_side)
        flipped = bool(rng.random() < self.flip)
        targets = moved_objects(objects, (height, width), size, flipped, self.masks)
        image = resized(image, size)
        return Row(normalise(image[:, ::-1] if flipped else image, self.mean, self.std), targets, name)


def object_stream(
    read: Read,
    indices: Sequence[int],
    *,
    batch: int,
    seed: int,
    resize: Resize,
    flip: float,
    masks: bool,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int,
    start: int = 0,
    steps: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[ObjectBatch]:
    """The batches of steps `start` to `steps - 1` of a training run.

    `read(index)` gives a sample and `indices` are those that take part. `batch` counts the images of a step over all
    ranks, of which rank r gets r, r + world, .... `flip` is the probability of a horizontal flip. `mean` and `std` are
    per RGB channel in units of 0..255. A batch is padded to a multiple of `pad`. Crowds are left out of the targets.
    What an image looks like does not depend on `workers` (processes that prepare batches ahead), `start` or `world`;
    how far it is padded depends on its neighbours in the batch.

    Raises what `bcd.data.semantic.stream.stream` raises.
    """
    check_share("batch", batch, indices, world)
    if batch == 0:
        raise UserError("batch is 0; set batch to 1 or more")
    dataset = ObjectSteps(read, indices, batch, seed, resize, flip, masks, mean, std, pad, rank, world)
    return load(dataset, range(start, steps), workers)


def padded(images: Sequence[np.ndarray], pad: int) -> tuple[Tensor, Tensor, list[Size]]:
    """Images float32 (3, h, w) in one batch (N, 3, H, W), H and W multiples of `pad`, its real part and their sizes."""
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = (padded_side(max(sides), pad) for sides in zip(*sizes, strict=True))
    batch = torch.zeros(len(images), 3, height, width)
    valid = torch.zeros(len(images), height, width, dtype=torch.bool)
    for row, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        batch[row, :, :h, :w] = torch.from_numpy(image)
        valid[row, :h, :w] = True
    return batch, valid, sizes


def padded_side(side: int, pad: int) -> int:
    """The smallest multiple of `pad` that is no less than `side`."""
    return -(-side // pad) * pad


def as_targets(boxes: np.ndarray, classes: np.ndarray, masks: np.ndarray | None, size: Size) -> Targets:
    """The targets as tensors, their masks padded to the batch's `size`."""
    drawn = None
    if masks is not None:
        room = [(0, 0), *((0, side - own) for side, own in zip(size, masks.shape[1:], strict=True))]
        drawn = torch.from_numpy(np.pad(masks, room))
    return Targets(torch.from_numpy(boxes), torch.from_numpy(classes), drawn)


@dataclass(frozen=True)
class EvaluationChunks:
    """Map-style dataset: chunk of dataset indices to its batches of images that are padded to one size."""

    read: Read
    resize: Resize
    mean: Sequence[float]
    std: Sequence[float]
    pad: int

    def __getitem__(self, chunk: Sequence[int]) -> list[EvalBatch] | UserError:
        try:
            rows = [self.row(index) for index in chunk]
        except UserError as error:
            return error
        runs = groupby(rows, lambda row: [padded_side(side, self.pad) for side in row.image.shape[1:]])
        return [self.collate(list(run)) for _, run in runs]

    def row(self, index: int) -> EvalRow:
        image, _, name = self.read(index)
        height, width = image.shape[:2]
        size = evaluated_size((height, width), self.resize)
        return EvalRow(normalise(resized(image, size), self.mean, self.std), (height, width), name)

    def collate(self, rows: Sequence[EvalRow]) -> EvalBatch:
        image, _, sizes = padded([row.image for row in rows], self.pad)
        return image, sizes, [row.original for row in rows], [row.name for row in rows]


def object_eval_batches(
    read: Read,
    indices: Sequence[int],
    *,
    resize: Resize,
    mean: Sequence[float],
    std: Sequence[float],
    pad: int,
    batch: int = 1,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[EvalBatch]:
    """Whole images in the order of `indices`, of which rank r gets r, r + world, ...; at the largest short side.

    Yields (image float32 (N, 3, H, W), normalised and padded; N real sizes in it; N original sizes; N names) with N up
    to `batch`. Neighbours share a batch only when each would be padded to that size by itself. So what a detector sees
    of an image does not depend on the others. Raises what `bcd.data.semantic.stream.stream` raises.
    """
    mine = indices[rank::world]
    chunks = [mine[first : first + batch] for first in range(0, len(mine), batch)]
    for runs in load(EvaluationChunks(read, resize, mean, std, pad), chunks, workers):
        yield from runs
