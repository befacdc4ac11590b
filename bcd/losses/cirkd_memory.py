"""Relations of pixels to a memory of the teacher's pixels and regions of earlier batches."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bcd import distributed
from bcd.config.ranges import Count, NonNegative, Positive
from bcd.errors import UserError
from bcd.losses.cirkd import pixels, relation_kl, unit
from bcd.losses.masked import full_precision, prepare
from bcd.losses.tiled import known_gradient

# Pixels that enter the memory per image and class.
PIXELS_PER_CLASS = 16

# A class, the (C,) mean of its pixels in one image, and some (k, C) of these pixels.
Entry = tuple[int, Tensor, Tensor]


class CirkdMemory(nn.Module):
    """Weighted sum of two divergences between the student's and the teacher's similarities to remembered features.

    Either is T^2 * mean over the labelled valid pixels a of KL(q_t(a) || q_s(a)), with q(a) = softmax over k of
    cos(f_a, m_k) / (tau T): f_a is the teacher's feature or the student's after a learned projection, and the m_k are
    slots of a memory of teacher features, drawn anew in each step, the same slots for every class. One memory holds
    pixels, the other regions (means over the pixels of a class in an image).

    In training every class of every image first enters the memories, with up to 16 of its pixels, drawn at random. They
    start as random unit vectors; pixels that would reach the end of a class's memory take its last slots, and the next
    ones its first. Buffers: the float32 unit vectors `region_queue` (classes, region_memory, C_t) and `pixel_queue`
    (classes, pixel_memory, C_t); the next slots `region_next` and `pixel_next`, int64 (classes,). The published sizes
    take 88 kB per class and channel: 430 MB for 19 classes and 256 channels. All processes remember the images of all.

    Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation" (arXiv 2204.06986),
    memory-based pixel-to-pixel and pixel-to-region distillation, as in github.com/winycg/CIRKD
    (losses/cirkd_memory.py). Deviations: the official code remembers the wrong pixels (see `official`); the
    projection's BatchNorm sees labelled valid pixels only; a batch without any gives 0; features shorter than 1e-4
    count as directionless.

    Args:
        student_shape, teacher_shape: observed (N, C, H, W); only C is read.
        classes: labels are 0 .. classes - 1, all others are ignored.
        pixel_memory, region_memory: slots per class.
        pixel_contrast, region_contrast: about how many slots are drawn per step; size // classes + 1 of each class.
        temperature, kd_temperature: tau and T, > 0.
        pixel_weight, region_weight: of the two divergences.
        official: as the code is: for a class of n pixels the memory gets pixels among the first n of the *image*;
            BatchNorm sees ignored pixels too; a batch without a label gives NaN.

    Raises:
        UserError: a memory too small for what one image brings.
    """

    region_queue: Tensor
    region_next: Tensor
    pixel_queue: Tensor
    pixel_next: Tensor

    def __init__(
        self,
        student_shape: Sequence[int],
        teacher_shape: Sequence[int],
        *,
        classes: int,
        pixel_memory: Annotated[int, Field(ge=16)] = 20000,
        region_memory: Count = 2000,
        pixel_contrast: Count = 4096,
        region_contrast: Count = 1024,
        temperature: Positive = 0.1,
        kd_temperature: Positive = 1.0,
        pixel_weight: NonNegative = 1.0,
        region_weight: NonNegative = 1.0,
        official: bool = False,
    ):
        super().__init__()
        if pixel_memory < PIXELS_PER_CLASS or region_memory < 1:
            raise UserError(
                f"cirkd_memory: pixel_memory must be at least {PIXELS_PER_CLASS} and region_memory at least 1, "
                f"not {pixel_memory} and {region_memory}"
            )
        channels = teacher_shape[1]
        self.classes, self.official = classes, official
        self.temperature, self.kd_temperature = temperature, kd_temperature
        self.pixel_weight, self.region_weight = pixel_weight, region_weight
        self.pixel_slots, self.region_slots = (size // classes + 1 for size in (pixel_contrast, region_contrast))
        # The official 1x1 convolutions, on rows of pixels; weights are initialised alike.
        self.head = nn.Sequential(
            nn.Linear(student_shape[1], channels, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels, bias=False),
        )
        self.register_buffer("region_queue", F.normalize(torch.randn(classes, region_memory, channels), dim=2))
        self.register_buffer("region_next", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("pixel_queue", F.normalize(torch.randn(classes, pixel_memory, channels), dim=2))
        self.register_buffer("pixel_next", torch.zeros(classes, dtype=torch.int64))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, *, valid: Tensor | None = None, label: Tensor) -> Tensor:
        """Remember the batch if training, and compare.

        Args:
            student, teacher: features (N, C_s, H, W) and (N, C_t, H, W).
            valid: bool (N, H, W).
            label: int64 (N, H, W), 255 = ignore.
        """
        student, teacher, valid = prepare(student, teacher, valid)
        anchors = valid & (label >= 0) & (label < self.classes)
        teacher = unit(teacher.permute(0, 2, 3, 1))
        if self.training:
            self.remember(teacher, label.masked_fill(~anchors, -1))
        if self.official:
            projected = self._project(student.permute(0, 2, 3, 1).flatten(0, 2))[anchors.flatten()]
        else:
            projected = self._project(pixels(student, anchors))
        return self.compare(unit(projected), teacher[anchors])

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of M pixels against the memory as it is.

        Args:
            student, teacher: unit vectors (M, C_t); the student's are projected.
        """
        if not len(student):
            return student.mean() * 0 if self.official else student.sum()  # the mean of nothing is NaN
        features, gradient = student.detach(), torch.zeros_like(student)
        temperature = self.temperature * self.kd_temperature
        loss = student.new_zeros(())
        for queue, slots, factor in (
            (self.pixel_queue, self.pixel_slots, self.pixel_weight),
            (self.region_queue, self.region_slots, self.region_weight),
        ):
            drawn = torch.randperm(queue.shape[1], device="cpu")[:slots].to(queue.device)
            keys = queue[:, drawn].flatten(0, 1).to(student.dtype)
            weight = student.new_full((len(student),), factor * self.kd_temperature**2 / len(student))
            loss += relation_kl(features, teacher, keys, keys, weight, temperature, gradient)
        return known_gradient(student, loss, gradient)

    @torch.no_grad()
    def remember(self, teacher: Tensor, label: Tensor) -> None:
        """Enter every class of every image into the memory.

        Args:
            teacher: unit vectors (N, H, W, C_t).
            label: int64 (N, H, W), -1 = ignore.
        """
        entries = list(_entries(teacher, label, self.official))
        for number, region, rows in _from_all_processes(entries, teacher.shape[-1]):
            self.region_queue[number, self.region_next[number]] = region.to(self.region_queue)
            self.region_next[number] = (self.region_next[number] + 1) % self.region_queue.shape[1]
            begin, size = int(self.pixel_next[number]), self.pixel_queue.shape[1]
            full = begin + len(rows) >= size
            begin = size - len(rows) if full else begin
            self.pixel_queue[number, begin : begin + len(rows)] = rows.to(self.pixel_queue)
            self.pixel_next[number] = 0 if full else begin + len(rows)

    def _project(self, rows: Tensor) -> Tensor:
        # BatchNorm refuses a single row, and SyncBatchNorm waits for every process, so there are always two.
        filled = F.pad(rows, (0, 0, 0, max(0, 2 - len(rows))))
        return self.head(filled)[: len(rows)]


def _entries(teacher: Tensor, label: Tensor, official: bool) -> Iterator[Entry]:
    """What one batch adds to the memory; draws one permutation per image and class, in ascending order of the class."""
    for features, classes in zip(teacher.flatten(1, 2), label.flatten(1), strict=True):
        for number in classes[classes >= 0].unique().tolist():
            positions = (classes == number).nonzero().squeeze(1)
            drawn = torch.randperm(len(positions), device="cpu")[:PIXELS_PER_CLASS].to(positions.device)
            rows = features[drawn if official else positions[drawn]]
            yield number, unit(features[positions].mean(0)), rows


def _from_all_processes(entries: list[Entry], channels: int) -> Iterator[Entry]:
    """The entries of every process in rank order, so that all memories stay equal."""
    if distributed.world() == 1:
        yield from entries
        return
    packed = torch.zeros(len(entries), 2 + (1 + PIXELS_PER_CLASS) * channels)
    for line, (number, region, rows) in zip(packed, entries, strict=True):
        line[:2] = torch.tensor([number, len(rows)])
        line[2 : 2 + (1 + len(rows)) * channels] = torch.cat([region, rows.flatten()])
    counts = [int(count) for count in distributed.gather(torch.tensor([len(entries)]))]
    padded = F.pad(packed, (0, 0, 0, max(counts) - len(entries)))
    for count, part in zip(counts, distributed.gather(padded), strict=True):
        for line in part[:count]:
            features = line[2:].unflatten(0, (-1, channels))
            yield int(line[0]), features[0], features[1 : 1 + int(line[1])]
