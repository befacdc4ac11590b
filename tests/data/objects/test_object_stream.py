"""Batches of images with objects: boxes and masks move with the pixels, and a batch is a function of seed and step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.dataset_layouts import data_use

from bcd.config.schema.recipes import Resize
from bcd.data.formats.scenes import THINGS
from bcd.data.objects.masks import mask
from bcd.data.objects.split import Objects, open_objects
from bcd.data.objects.stream import ObjectBatch, object_eval_batches, object_stream
from bcd.data.objects.transforms import moved_mask, moved_objects, resized
from bcd.data.semantic.stream import cached
from bcd.data.semantic.transforms import new_size
from bcd.errors import UserError
from bcd.models.detection.detector import Regions

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
RESIZE = Resize(short_sides=[24, 32, 40], max_long_side=60)
OPTIONS = PLAIN | {"batch": 4, "seed": 3, "resize": RESIZE, "flip": 0.5, "masks": True, "pad": 16,
                   "steps": 6}  # fmt: skip
SIZES = [(24, 40), (40, 24), (30, 30), (24, 90), (25, 41), (40, 24), (40, 24), (60, 32)]


def read(index: int) -> tuple[np.ndarray, Objects, str]:
    """An image whose objects are coloured rectangles: one by a polygon, one by a run-length code, and a crowd."""
    height, width = SIZES[index]
    rng = np.random.default_rng(index)
    image = np.full((height, width, 3), 10, np.uint8)
    boxes, codes = [], []
    for number in range(3):
        left, top = rng.integers(0, width - 12), rng.integers(0, height - 12)
        right, bottom = left + rng.integers(8, 12), top + rng.integers(8, 12)
        image[top:bottom, left:right, number] = 200
        boxes.append((left, top, right, bottom))
        codes.append([[int(n) for n in (left, top, right, top, right, bottom, left, bottom)]])
    drawn = np.zeros((height, width), np.uint8)
    drawn[boxes[1][1] : boxes[1][3], boxes[1][0] : boxes[1][2]] = 1
    codes[1] = uncompressed(drawn)
    crowd = np.array([False, False, True])
    return image, Objects(np.array(boxes, np.float32), np.array([0, 1, 2]), crowd, codes), f"image{index}"


def uncompressed(drawn: np.ndarray) -> dict:
    edges = np.flatnonzero(np.diff(drawn.ravel(order="F"), prepend=0))
    return {"size": list(drawn.shape), "counts": np.diff(edges, prepend=0, append=drawn.size).tolist()}


def take(indices=range(8), *, read=read, **changes) -> list[ObjectBatch]:
    return list(object_stream(read, indices, **{**OPTIONS, **changes}))


def same(first: ObjectBatch, second: ObjectBatch) -> bool:
    if (first.names, first.sizes, first.labelled) != (second.names, second.sizes, second.labelled):
        return False
    pairs = [(first.image, second.image), (first.valid, second.valid)]
    for one, other in zip(first.targets, second.targets, strict=True):
        pairs += [(one.boxes, other.boxes), (one.classes, other.classes), (one.masks, other.masks)]
    return all(torch.equal(one, other) for one, other in pairs)


def test_batch_follows_the_contract():
    for batch in take():
        n, _, height, width = batch.image.shape
        assert n == batch.labelled == len(batch.names) == len(batch.sizes) == len(batch.targets) == 4
        assert height % 16 == width % 16 == 0
        assert 0 <= height - max(h for h, _ in batch.sizes) < 16 and 0 <= width - max(w for _, w in batch.sizes) < 16
        assert batch.image.dtype == torch.float32 and batch.image.is_contiguous()
        assert batch.valid.shape == (4, height, width) and batch.valid.dtype == torch.bool
        for image, valid, (h, w), target in zip(batch.image, batch.valid, batch.sizes, batch.targets, strict=True):
            assert valid[:h, :w].all() and valid.sum() == h * w
            assert (image[:, ~valid] == 0).all() and (image[:, valid] > 0).all()
            assert target.boxes.dtype == torch.float32 and target.classes.dtype == torch.int64
            assert target.masks.dtype == torch.uint8 and target.masks.shape == (2, height, width)
            assert target.classes.tolist() == [0, 1]
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all() and (target.boxes >= 0).all()
            assert (target.boxes <= torch.tensor([w, h, w, h])).all()


def test_boxes_and_masks_lie_on_what_they_mark():
    """Each object has a colour of its own, whatever was resized and flipped; pixels at its edges are mixed."""
    flips = 0
    for batch in take(steps=10):
        for image, target, name in zip(batch.image, batch.targets, batch.names, strict=True):
            flips += bool(target.boxes[0, 0] > 0)
            for colour, (box, drawn) in enumerate(zip(target.boxes, target.masks, strict=True)):
                rows, columns = torch.nonzero(image[colour] > 105, as_tuple=True)
                found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert np.allclose(found, box, atol=1.01), name
                disagree = (drawn > 0) != (image[colour] > 105)
                assert disagree.sum() < 0.25 * drawn.sum()
    assert flips


@pytest.mark.parametrize(
    ("old", "short_side", "long_limit", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),  # 1066.67
        ((640, 480), 800, 1333, (1067, 800)),
        ((427, 640), 800, 1333, (800, 1199)),  # 1199.06
        ((375, 500), 800, 1333, (800, 1067)),
        ((213, 640), 800, 1333, (444, 1333)),  # the long side rules: 443.64
        ((140, 213), 800, 1333, (800, 1217)),  # 1217.14
        ((100, 100), 33, 60, (33, 33)),
        ((4, 10), 3, 1333, (3, 8)),  # 7.5 rounds up
        ((1, 5000), 800, 1333, (1, 1333)),  # never without a pixel
    ],
)
def test_new_sizes(old, short_side, long_limit, expected):
    assert new_size(old, short_side, long_limit) == expected


def test_short_sides_and_flips_are_drawn():
    sides = {min(size) for batch in take(indices=[0, 1, 2], steps=10, flip=0.0) for size in batch.sizes}
    assert sides == {24, 32, 36, 40}  # 36: 40 would make the long side 66.7 instead of 60
    flipped, straight = take(flip=1.0), take(flip=0.0)
    for mirrored, batch in zip(flipped, straight, strict=True):
        for n, (_, width) in enumerate(batch.sizes):
            assert torch.equal(mirrored.image[n, :, :, :width], batch.image[n, :, :, :width].flip(-1))
            boxes = batch.targets[n].boxes
            expected = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
            assert torch.allclose(mirrored.targets[n].boxes, expected, atol=1e-5)


def test_polygons_are_moved_before_they_are_drawn():
    """At ten times the size a triangle's edge is fine, which it would not be after enlarging its mask."""
    triangle = [[0, 0, 10, 0, 0, 10]]
    fine = moved_mask(triangle, (10, 10), (100, 100), False)
    assert np.array_equal(fine, mask([[10 * n for n in triangle[0]]], 100, 100))
    assert abs(int(fine.sum()) - 5000) <= 100
    assert np.array_equal(moved_mask(triangle, (10, 10), (100, 100), True)[:, ::-1].sum(0), fine.sum(0))


def test_run_length_codes_take_the_nearest_pixel():
    drawn = np.random.default_rng(0).integers(0, 2, (6, 7), np.uint8)
    doubled = moved_mask(uncompressed(drawn), (6, 7), (12, 14), False)
    assert np.array_equal(doubled, drawn.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(moved_mask(uncompressed(drawn), (6, 7), (12, 14), True), doubled[:, ::-1])


def test_objects_that_vanish_are_dropped():
    """A box that clipping empties, a mask without a pixel at the new size, and a crowd."""
    boxes = np.array([[-1, 2, 0, 5], [4, 4, 4.3, 4.3], [1, 1, 9, 9], [0, 0, 9, 9]], np.float32)
    full = [[0, 0, 10, 0, 10, 10, 0, 10]]
    codes = [full, [[4, 4, 4.3, 4, 4.3, 4.3]], full, full]
    objects = Objects(boxes, np.arange(4), np.array([False, False, False, True]), codes)
    assert moved_objects(objects, (10, 10), (5, 5), False, False)[1].tolist() == [1, 2]
    kept, classes, masks = moved_objects(objects, (10, 10), (5, 5), False, True)
    assert classes.tolist() == [2] and kept.tolist() == [[0.5, 0.5, 4.5, 4.5]] and masks.shape == (1, 5, 5)
    assert objects.boxes[0, 0] == -1  # the input stays as it is


def test_an_image_with_nothing_left_is_no_error():
    def only_crowds(index):
        image, objects, name = read(index)
        return image, replace(objects, crowd=np.ones(3, bool)), name

    for target in take(read=only_crowds, steps=1)[0].targets:
        assert target.boxes.shape == (0, 4) and target.classes.shape == (0,) and target.masks.shape[0] == 0


def test_without_masks_there_are_none():
    batch, with_masks = take(masks=False, steps=1)[0], take(steps=1)[0]
    assert all(target.masks is None for target in batch.targets)
    assert torch.equal(batch.image, with_masks.image)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert all(map(same, take(), take(workers=workers)))


@pytest.mark.parametrize("start", [1, 5, 6])
def test_resuming_changes_nothing(start):
    rest = take(start=start)
    assert len(rest) == 6 - start and all(map(same, take()[start:], rest))


def test_seed_changes_everything_and_an_epoch_sees_every_image_once():
    assert not any(map(same, take(), take(seed=4)))
    names = [name for batch in take() for name in batch.names]
    for epoch in (names[:8], names[8:16], names[16:]):
        assert sorted(epoch) == [f"image{i}" for i in range(8)]


def test_ranks_share_the_global_batch():
    ranks = [take(rank=rank, world=2) for rank in range(2)]
    for batch, *parts in zip(take(), *ranks, strict=True):
        for rank, part in enumerate(parts):
            assert part.labelled == 2 and part.names == batch.names[rank::2] and part.sizes == batch.sizes[rank::2]
            for row, (h, w) in enumerate(part.sizes):
                assert torch.equal(part.image[row, :, :h, :w], batch.image[rank + 2 * row, :, :h, :w])
                assert torch.equal(part.targets[row].boxes, batch.targets[rank + 2 * row].boxes)


def test_global_generators_stay_untouched():
    torch.manual_seed(0)
    np.random.seed(0)
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(steps=2)
    assert torch.equal(before, torch.get_rng_state()) and np.array_equal(state, np.random.get_state()[1])


def test_remembered_samples_stay_as_they_are():
    assert all(map(same, take(), take(read=cached(read))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world": 3}, "batch is 4, which 3 processes cannot share"),
        ({"indices": []}, "batch is 4 but there are no images"),
        ({"batch": 0}, "batch is 0; set batch to 1 or more"),
    ],
)
def test_impossible_requests_fail_at_once(changes, message):
    indices = changes.pop("indices", range(8))
    with pytest.raises(UserError, match=message):
        object_stream(read, indices, **{**OPTIONS, **changes})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_of_read_arrives_as_one_sentence(workers):
    def broken(index):
        raise UserError(f"image{index} is damaged; fetch it again")

    with pytest.raises(UserError, match="is damaged"):
        take(read=broken, workers=workers)
    with pytest.raises(UserError, match="is damaged"):
        list(object_eval_batches(broken, range(2), resize=OPTIONS["resize"], pad=16, workers=workers, **PLAIN))


def test_facts_and_labelled_part_and_to():
    batch = take(steps=1)[0]
    regions = Regions([torch.zeros(3, 4)] * 4, [torch.zeros(3, dtype=torch.int64)] * 4)
    with_regions = replace(batch, regions=regions, region_classes=torch.zeros(12, dtype=torch.int64))
    facts = with_regions.facts()
    assert set(facts) == {"valid", "label", "boxes", "region_label"} and facts["label"] is None
    assert facts["valid"] is batch.valid and facts["region_label"] is with_regions.region_classes
    height, width = batch.image.shape[-2:]
    for fractions, target in zip(facts["boxes"], batch.targets, strict=True):
        assert torch.allclose(fractions * torch.tensor([width, height, width, height]), target.boxes)
    assert same(with_regions.labelled_part(), batch) and with_regions.labelled_part().regions is None
    moved = with_regions.to("meta", non_blocking=True)
    tensors = [moved.image, moved.valid, moved.region_classes, *moved.regions.boxes, *moved.regions.index]
    tensors += [part for t in moved.targets for part in (t.boxes, t.classes, t.masks)]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert batch.to("meta").regions is None


def evaluated(**changes):
    options = PLAIN | {"resize": Resize(short_sides=[32, 24], max_long_side=60), "pad": 16, "batch": 3} | changes
    return list(object_eval_batches(read, range(8), **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_covers_everything_in_order(workers):
    batches = evaluated(workers=workers)
    assert [name for *_, names in batches for name in names] == [f"image{i}" for i in range(8)]
    assert [size for _, _, originals, _ in batches for size in originals] == SIZES
    assert [min(size) for _, sizes, _, _ in batches for size in sizes] == [32, 32, 32, 16, 32, 32, 32, 32]
    assert [len(names) for *_, names in batches] == [1, 1, 1, 1, 1, 1, 2]


def test_what_is_seen_of_an_image_does_not_depend_on_its_batch():
    alone = {names[0]: (image, sizes) for image, sizes, _, names in evaluated(batch=1)}
    together = evaluated(batch=8)
    assert max(len(names) for *_, names in together) > 1
    for image, sizes, _, names in together:
        for row, name in enumerate(names):
            assert torch.equal(image[row : row + 1], alone[name][0]) and sizes[row : row + 1] == alone[name][1]


def test_evaluation_shows_the_image_at_the_largest_short_side():
    image, [(height, width)], [(_, _)], [name] = evaluated(batch=1)[0]
    expected = resized(read(0)[0], (height, width))
    assert name == "image0" and (height, width) == (32, 53)
    assert np.array_equal(image[0, :, :height, :width].permute(1, 2, 0).numpy(), expected)


def test_evaluation_ranks_split_the_images():
    names = [[n for *_, found in evaluated(rank=rank, world=2) for n in found] for rank in range(2)]
    assert names == [[f"image{i}" for i in range(rank, 8, 2)] for rank in range(2)]


def test_scenes_at_their_own_size_keep_their_pixels(smoke_data):
    """Without a change of size the masks of the batch are those of the file, flipped or not."""
    split = open_objects(smoke_data, data_use("scenes", list(THINGS)), "train", masks=True)
    options = OPTIONS | {"resize": Resize(short_sides=[48], max_long_side=48), "pad": 48, "flip": 1.0, "steps": 3}
    for batch in object_stream(split.read, split.annotated, **options):
        for target, name in zip(batch.targets, batch.names, strict=True):
            _, objects, _ = split.read([split.read(n)[2] for n in range(len(split))].index(name))
            expected = np.stack([mask(code, 48, 48)[:, ::-1] for code in objects.segmentation])
            assert np.array_equal(target.masks.numpy(), expected)
            for box, drawn in zip(target.boxes, expected, strict=True):
                rows, columns = np.nonzero(drawn)
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
