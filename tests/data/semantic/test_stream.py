"""The batch stream: a pure function of seed and step, paired, leak-free, and honest about dead workers."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bcd.data.loading import dead_workers_named
from bcd.data.semantic.stream import Batch, cached, eval_batches, stream
from bcd.data.semantic.transforms import Augment
from bcd.errors import UserError

AUGMENT = Augment(crop=(12, 20), scale=(0.5, 1.5))
LABELLED, UNLABELLED = list(range(7)), list(range(7, 20))
OPTIONS = {"batch": 4, "unlabelled_batch": 2, "seed": 3, "augment": AUGMENT, "steps": 6}


def read(index: int) -> tuple[np.ndarray, np.ndarray, str]:
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    label = rng.integers(0, 5, (16, 24), dtype=np.uint8)
    label[:4] = 255
    return image, label, f"image{index}"


def take(labelled=LABELLED, unlabelled=UNLABELLED, *, read=read, **changes) -> list[Batch]:
    return list(stream(read, labelled, unlabelled, **{**OPTIONS, **changes}))


def same(first: Batch, second: Batch) -> bool:
    tensors = ("image", "label", "valid")
    return (
        all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors)
        and first.names == second.names
        and first.labelled == second.labelled
    )


def test_batch_follows_the_contract():
    for batch in take():
        assert batch.image.shape == (6, 3, 12, 20) and batch.image.dtype == torch.float32
        assert batch.label.shape == (6, 12, 20) and batch.label.dtype == torch.int64
        assert batch.valid.shape == (6, 12, 20) and batch.valid.dtype == torch.bool
        assert all(t.is_contiguous() for t in (batch.image, batch.label, batch.valid))
        assert batch.labelled == 4 and len(batch.names) == 6
        assert set(batch.names[:4]) <= {f"image{i}" for i in LABELLED}
        assert set(batch.names[4:]) <= {f"image{i}" for i in UNLABELLED}
        assert torch.equal(batch.valid[:4], batch.label[:4] != 255)
        assert (batch.label[4:] == 255).all()


def test_valid_of_unlabelled_images_is_everything_but_padding():
    """Crops larger than the image: exactly 16 of 40 rows and 24 of 50 columns are real."""
    batch = take(augment=Augment(crop=(40, 50)), steps=1)[0]
    assert batch.valid[4:].sum().item() == 2 * 16 * 24
    assert batch.valid[:4].sum().item() == 4 * 12 * 24  # four rows of each label are ignored
    assert (batch.image[4:].abs().sum(dim=1)[~batch.valid[4:]] == 0).all()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers):
    assert all(map(same, take(), take(workers=workers)))


@pytest.mark.parametrize("start", [1, 3, 5])
def test_resuming_changes_nothing(start):
    rest = take(start=start)
    assert len(rest) == 6 - start
    assert all(map(same, take()[start:], rest))


def test_nothing_to_do_after_the_last_step():
    assert take(start=6) == []


def test_ranks_share_the_global_batch():
    whole = take()
    ranks = [take(rank=rank, world=2) for rank in range(2)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        for rank, part in enumerate(parts):
            rows = [0 + rank, 2 + rank, 4 + rank]
            assert part.labelled == 2
            assert part.names == [batch.names[row] for row in rows]
            assert torch.equal(part.image, batch.image[rows])
            assert torch.equal(part.label, batch.label[rows])


def test_labelled_rows_do_not_know_of_unlabelled_ones():
    paired = take(unlabelled=[], unlabelled_batch=0)
    for with_both, alone in zip(take(), paired, strict=True):
        assert same(with_both.labelled_part(), alone)


def test_unlabelled_labels_never_leak():
    """With other labels on the unlabelled images every byte stays the same, even the choice of the crop."""

    def relabelled(index):
        image, label, name = read(index)
        return image, (label if index in LABELLED else np.full_like(label, 2)), name

    a = replace(AUGMENT, cat_max_ratio=0.4)
    assert all(map(same, take(augment=a), take(augment=a, read=relabelled)))


def test_an_epoch_sees_every_image_once():
    names = [name for batch in take(steps=14) for name in batch.labelled_part().names]
    epochs = [names[first : first + 7] for first in range(0, 56, 7)]
    assert all(sorted(epoch) == [f"image{i}" for i in LABELLED] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_an_image_is_seen_differently_each_time():
    views = [batch.image for batch in take([0], batch=1, unlabelled_batch=0, steps=4)]
    assert len({view.numpy().tobytes() for view in views}) == 4


def test_seed_changes_order_and_views():
    assert not any(map(same, take(), take(seed=4)))


def test_global_generators_stay_untouched():
    torch.manual_seed(0)
    np.random.seed(0)
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    take(workers=1, steps=2)
    take(steps=2)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(state, np.random.get_state()[1])


def test_only_the_needed_images_are_read():
    seen = []

    def noted(index):
        seen.append(index)
        return read(index)

    take(read=noted, steps=1)
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world": 3}, "batch is 4, which 3 processes cannot share"),
        ({"batch": 4, "unlabelled_batch": 1, "world": 2}, "unlabelled_batch is 1, which 2"),
        ({"labelled": []}, "batch is 4 but there are no images"),
        ({"unlabelled": []}, "unlabelled_batch is 2 but there are no images"),
        ({"batch": 0, "unlabelled_batch": 0}, "both 0"),
    ],
)
def test_impossible_requests_fail_at_once(changes, message):
    labelled, unlabelled = changes.pop("labelled", LABELLED), changes.pop("unlabelled", UNLABELLED)
    with pytest.raises(UserError, match=message):
        stream(read, labelled, unlabelled, **{**OPTIONS, **changes})


@pytest.mark.parametrize("workers", [0, 1])
def test_a_user_error_of_read_arrives_as_one_sentence(workers):
    def broken(index):
        raise UserError(f"image{index} is damaged; fetch it again")

    with pytest.raises(UserError) as caught:
        take(read=broken, workers=workers)
    assert str(caught.value).startswith("image") and "\n" not in str(caught.value)


def test_a_bug_in_read_keeps_its_type_and_traceback():
    def buggy(index):
        raise RuntimeError("a bug of ours")

    with pytest.raises(RuntimeError, match="a bug of ours"):
        take(read=buggy, workers=1)


def test_a_worker_killed_by_a_signal_is_named():
    def deadly(index):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="process was killed by signal: Killed;"), dead_workers_named():
        take(read=deadly, workers=1)


def test_a_worker_that_exits_is_named():
    def leaving(index):
        os._exit(3)

    with pytest.raises(UserError, match="process exited unexpectedly with exit code 3;"), dead_workers_named():
        take(read=leaving, workers=1)


def test_a_worker_that_dies_while_the_learner_computes_is_named():
    reads = []

    def deadly(index):
        reads.append(index)
        if len(reads) > 6:
            time.sleep(0.5)  # the first batch is on its way by then
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(index)

    with pytest.raises(UserError, match="process was killed by signal: Segmentation fault"), dead_workers_named():
        for _ in stream(deadly, LABELLED, UNLABELLED, workers=1, **OPTIONS):
            time.sleep(10)  # cut short by the worker's death


def test_to_and_labelled_part():
    batch = take(steps=1)[0]
    moved = batch.to("meta", non_blocking=True)
    assert moved.image.device.type == moved.label.device.type == moved.valid.device.type == "meta"
    assert (moved.labelled, moved.names) == (batch.labelled, batch.names)
    part = batch.labelled_part()
    assert len(part.image) == len(part.label) == len(part.valid) == len(part.names) == part.labelled == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_eval_batches_cover_everything_in_order(workers):
    """Images 3 and 4 are larger, so they share no batch with the others."""

    def mixed(index):
        image, label, name = read(index)
        return (image, label, name) if index not in (3, 4) else (image[:, :8], label[:, :8], name)

    options = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "batch": 3, "workers": workers}
    batches = list(eval_batches(mixed, range(8), **options))
    assert [name for _, _, names in batches for name in names] == [f"image{i}" for i in range(8)]
    assert [len(names) for _, _, names in batches] == [3, 2, 1, 2]
    for image, labels, names in batches:
        for plane, label, name in zip(image, labels, names, strict=True):
            expected = mixed(int(name.removeprefix("image")))
            assert np.array_equal(plane.permute(1, 2, 0).numpy(), expected[0])
            assert np.array_equal(label, expected[1])


def test_eval_ranks_split_the_images():
    options = {"mean": AUGMENT.mean, "std": AUGMENT.std, "batch": 2, "world": 2}
    names = [[n for _, _, ns in eval_batches(read, range(7), rank=r, **options) for n in ns] for r in range(2)]
    assert names == [["image0", "image2", "image4", "image6"], ["image1", "image3", "image5"]]


def test_cached_reads_each_image_once_and_protects_it():
    seen = []

    def noted(index):
        seen.append(index)
        return read(index)

    remembered = cached(noted)
    assert all(map(same, take(), take(read=remembered)))
    assert len(seen) == len(set(seen))
    image, label, _ = remembered(0)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        label[0] = 0
