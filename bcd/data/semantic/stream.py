"""Batches for training and evaluation.

A training batch is a pure function of the seed and its step: position `p = step * batch + j` picks an image from
the seeded permutation of epoch `p // n` and seeds its own augmentation generator. Labelled and unlabelled images are
two such sequences that know nothing of each other. So methods that use unlabelled images see the same labelled batches
as methods that do not.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch

from bcd.config.schema.recipes import Resize
from bcd.data.loading import load
from bcd.data.semantic.split import Item, Read
from bcd.data.semantic.transforms import Augment, augment, evaluated_size, normalise, resize_linear
from bcd.errors import UserError
from bcd.label import IGNORE

# Images float32 (N, 3, H, W), N labels uint8 (H, W), N names.
EvalBatch = tuple[torch.Tensor, list[np.ndarray], list[str]]

# Words after the seed of each random sequence, so that no two sequences share their numbers.
ORDER, VIEW = 1, 2
LABELLED, UNLABELLED = 1, 2


@dataclass(frozen=True)
class Batch:
    """One training batch of N images, labelled ones first.

    image    float32 (N, 3, H, W), normalised
    label    int64 (N, H, W), 255 = ignore; all 255 for unlabelled images
    valid    bool (N, H, W), pixels that a distillation term may use: neither padding nor, in a labelled image,
             ignored
    labelled number of labelled images
    names    N names, for messages
    """

    image: torch.Tensor
    label: torch.Tensor
    valid: torch.Tensor
    labelled: int
    names: list[str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`."""
        image, label, valid = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.image, self.label, self.valid)
        )
        return replace(self, image=image, label=label, valid=valid)

    def labelled_part(self) -> "Batch":
        """The labelled images alone; its tensors are views."""
        n = self.labelled
        return Batch(self.image[:n], self.label[:n], self.valid[:n], n, self.names[:n])

    def facts(self) -> dict[str, torch.Tensor]:
        """What distillation terms may know of the batch, see `bcd.distill.terms.WeightedTerms.forward`."""
        return {"valid": self.valid, "label": self.label}


@dataclass(frozen=True)
class TrainingSteps:
    """Map-style dataset for one rank: step number to Batch. See `stream` for the fields."""

    read: Read
    labelled: Sequence[int]
    unlabelled: Sequence[int]
    batch: int
    unlabelled_batch: int
    seed: int
    augment: Augment
    rank: int
    world: int

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            rows = [self.labelled_row(p) for p in self.positions(step, self.batch)]
            labelled = len(rows)
            rows += [self.unlabelled_row(p) for p in self.positions(step, self.unlabelled_batch)]
        except UserError as error:
            return error
        images, labels, valid, names = zip(*rows, strict=True)
        return Batch(
            image=torch.from_numpy(np.stack(images)),
            label=torch.from_numpy(np.stack(labels).astype(np.int64)),
            valid=torch.from_numpy(np.stack(valid)),
            labelled=labelled,
            names=list(names),
        )

    def positions(self, step: int, batch: int) -> range:
        """This rank's positions of a step: rows are dealt like cards."""
        return range(step * batch + self.rank, (step + 1) * batch, self.world)

    def labelled_row(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        image, label, name = self.read(pick(self.labelled, self.seed, LABELLED, position))
        rng = generator(self.seed, VIEW, LABELLED, position)
        image, label, real = augment(image, label, rng, self.augment)
        return image, label, real & (label != IGNORE), name

    def unlabelled_row(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        image, _, name = self.read(pick(self.unlabelled, self.seed, UNLABELLED, position))
        rng = generator(self.seed, VIEW, UNLABELLED, position)
        # The true label is dropped here, so it cannot steer even the choice of the crop.
        blank = np.full(image.shape[:2], IGNORE, np.uint8)
        image, label, real = augment(image, blank, rng, replace(self.augment, cat_max_ratio=None))
        return image, label, real, name


def generator(*key: int) -> np.random.Generator:
    """The random generator of a key of non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


@lru_cache(maxsize=16)
def epoch_order(seed: int, tag: int, epoch: int, count: int) -> np.ndarray:
    """The permutation of `count` images that epoch `epoch` walks through."""
    return generator(seed, ORDER, tag, epoch).permutation(count)


def pick(indices: Sequence[int], seed: int, tag: int, position: int) -> int:
    """The dataset index at a position of an endless sequence over `indices`."""
    epoch, slot = divmod(position, len(indices))
    return indices[epoch_order(seed, tag, epoch, len(indices))[slot]]


def stream(
    read: Read,
    labelled: Sequence[int],
    unlabelled: Sequence[int] = (),
    *,
    batch: int,
    unlabelled_batch: int = 0,
    seed: int,
    augment: Augment,
    start: int = 0,
    steps: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """The batches of steps `start` to `steps - 1` of a training run.

    `read(index)` gives a sample; `labelled` and `unlabelled` are the indices that take part. `batch` and
    `unlabelled_batch` count the images of a step over all ranks; rank r gets rows r, r + world, ... of each
    kind. Batches do not depend on `workers` (processes that prepare them ahead) nor on `start`, and the global
    torch and numpy generators stay untouched.

    Raises UserError for counts that cannot be dealt, whatever UserError `read` raises, and, if a worker dies,
    one that names its signal or exit code (see `loading.dead_workers_named`).
    """
    check_share("batch", batch, labelled, world)
    check_share("unlabelled_batch", unlabelled_batch, unlabelled, world)
    if batch + unlabelled_batch == 0:
        raise UserError("batch and unlabelled_batch are both 0; set batch to 1 or more")
    dataset = TrainingSteps(read, labelled, unlabelled, batch, unlabelled_batch, seed, augment, rank, world)
    return load(dataset, range(start, steps), workers)


def check_share(field: str, rows: int, indices: Sequence[int], world: int) -> None:
    """Raise UserError unless `rows` rows can be drawn from `indices` and dealt to `world` ranks."""
    if rows and not len(indices):
        raise UserError(f"{field} is {rows} but there are no images to draw from; set {field} to 0")
    if rows % world:
        raise UserError(f"{field} is {rows}, which {world} processes cannot share; use a multiple of {world}")


@dataclass(frozen=True)
class EvaluationChunks:
    """Map-style dataset: chunk of dataset indices to its batches of equal-sized images. See `eval_batches`."""

    read: Read
    resize: Resize | None
    mean: Sequence[float]
    std: Sequence[float]

    def __getitem__(self, chunk: Sequence[int]) -> list[EvalBatch] | UserError:
        try:
            items = [self.read(index) for index in chunk]
        except UserError as error:
            return error
        runs: list[list[Item]] = []
        for item in items:
            if runs and runs[-1][-1][0].shape == item[0].shape:
                runs[-1].append(item)
            else:
                runs.append([item])
        return [self.collate(run) for run in runs]

    def collate(self, items: list[Item]) -> EvalBatch:
        images, labels, names = ([*column] for column in zip(*items, strict=True))
        if self.resize:
            height, width = images[0].shape[:2]
            size = evaluated_size((height, width), self.resize)
            images = [resize_linear(image, size) for image in images]
        planes = np.stack([normalise(image, self.mean, self.std) for image in images])
        return torch.from_numpy(planes), labels, names


def eval_batches(
    read: Read,
    indices: Sequence[int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    resize: Resize | None = None,
    batch: int = 1,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[EvalBatch]:
    """Whole, normalised images in the order of `indices`, of which rank r gets r, r + world, ....

    Yields (image float32 (N, 3, H, W), N labels uint8 (H, W), N names) with N up to `batch`; neighbours share
    a batch only when they are of one size. `resize` changes the images and leaves the labels. Raises what `stream`
    raises.
    """
    mine = indices[rank::world]
    chunks = [mine[first : first + batch] for first in range(0, len(mine), batch)]
    for runs in load(EvaluationChunks(read, resize, mean, std), chunks, workers):
        yield from runs


Parts = TypeVar("Parts", bound=tuple)


def cached(read: Callable[[int], Parts]) -> Callable[[int], Parts]:
    """`read` with a memory: each sample is read once per process and kept, as read-only arrays.

    For data sets that fit in memory. Worker processes fill memories of their own.
    """
    memory: dict[int, Parts] = {}

    def read_once(index: int) -> Parts:
        if index not in memory:
            memory[index] = read(index)
            for part in memory[index]:
                if isinstance(part, np.ndarray):
                    part.setflags(write=False)
        return memory[index]

    return read_once
