"""Augmentation and preprocessing: shapes, padding, label values, and the photometric recipe."""

import colorsys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd.config.schema.recipes import Resize
from bcd.data.semantic.transforms import Augment, augment, distort, evaluated_size, line, normalise, resize_pair

PLAIN = Augment(crop=(20, 28), flip=0.0, photometric=False, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sample(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    values = rng(seed)
    image = values.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, values.choice(np.array([0, 3, 7, 255], np.uint8), (height, width))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(5, 60),
    width=st.integers(5, 60),
    crop=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    low=st.floats(0.4, 1.0),
    high=st.floats(1.0, 2.1),
    seed=st.integers(0, 2**32),
)
def test_shapes_padding_and_label_values(height, width, crop, low, high, seed):
    image, label = sample(height, width)
    image, result, real = augment(image, label, rng(seed), replace(PLAIN, crop=crop, scale=(low, high), flip=0.5))
    assert image.shape == (3, *crop) and image.dtype == np.float32 and image.flags.c_contiguous
    assert result.shape == crop and result.dtype == np.uint8 and result.flags.c_contiguous
    assert real.shape == crop and real.dtype == bool and real.flags.c_contiguous
    assert set(np.unique(result)) <= {0, 3, 7, 255}
    assert real.any()
    assert (result[~real] == 255).all()
    assert (image[:, ~real] == 0).all()
    rows, columns = real.any(axis=1), real.any(axis=0)
    assert np.array_equal(real, rows[:, None] & columns)


def test_small_image_is_padded_at_the_bottom_and_right():
    image, label = sample(12, 40)
    _, result, real = augment(image, label, rng(), PLAIN)
    assert real[:12].all() and not real[12:].any()
    assert (result[12:] == 255).all()


def test_crop_is_a_window_of_image_and_label_alike():
    """Each pixel's colour tells where it came from, so a window shows as a shift."""
    ys, xs = np.mgrid[:50, :60].astype(np.uint8)
    image = np.stack([ys, xs, ys], axis=-1)
    a = replace(PLAIN, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    corners = set()
    for seed in range(40):
        view, label, real = augment(image, xs, rng(seed), a)
        assert real.all()
        assert np.array_equal(view[1], label)
        assert np.array_equal(view[:2] - view[:2, :1, :1], np.mgrid[:20, :28])
        corners.add((view[0, 0, 0], view[1, 0, 0]))
    assert len(corners) > 30


def test_flip_mirrors_all_three():
    image, label = sample(12, 40)
    plain, flipped = (augment(image, label, rng(3), replace(PLAIN, flip=p)) for p in (0.0, 1.0))
    for before, after in zip(plain, flipped, strict=True):
        assert np.array_equal(before[..., ::-1], after)


def test_same_generator_state_gives_the_same_view():
    image, label = sample(50, 50)
    a = replace(PLAIN, photometric=True, scale=(0.5, 2.0), cat_max_ratio=0.75, flip=0.5)
    first, again, other = (augment(image, label, rng(seed), a) for seed in (5, 5, 6))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_inputs_are_left_alone():
    image, label = sample(30, 30)
    image.setflags(write=False)
    label.setflags(write=False)
    for seed in range(12):
        augment(image, label, rng(seed), replace(PLAIN, photometric=True, scale=(0.5, 2.0), flip=0.5))


def test_cat_max_ratio_avoids_crops_of_one_class():
    """Only a narrow seam in the middle gives a mixed crop; ignored pixels must not count."""
    label = np.zeros((20, 200), np.uint8)
    label[:, 100:150] = 1
    label[:, 150:] = 255
    image = np.zeros((20, 200, 3), np.uint8)

    def mixed(ratio):
        a = replace(PLAIN, cat_max_ratio=ratio)
        labels = [augment(image, label, rng(seed), a)[1] for seed in range(100)]
        return np.mean([{0, 1} <= set(np.unique(x)) for x in labels])

    assert mixed(0.9) > 2 * mixed(None)


def test_cat_max_ratio_gives_up_on_a_uniform_image():
    image, label = np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50), np.uint8)
    _, result, real = augment(image, label, rng(), replace(PLAIN, cat_max_ratio=0.5))
    assert real.all() and not result.any()


def test_normalise():
    image, _ = sample(6, 9)
    expected = (image.astype(np.float64) - PLAIN.mean) / PLAIN.std
    result = normalise(image, PLAIN.mean, PLAIN.std)
    assert result.dtype == np.float32 and result.flags.c_contiguous
    np.testing.assert_allclose(result, expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [(10, 15), (40, 60), (33, 11)])
def test_resize_pair_keeps_label_values_and_mean_colour(size):
    image = np.full((20, 30, 3), (10, 200, 90), np.uint8)
    label = sample(20, 30)[1]
    image, label = resize_pair(image, label, size)
    assert image.shape == (*size, 3) and label.shape == size
    assert (image == (10, 200, 90)).all()
    assert set(np.unique(label)) <= {0, 3, 7, 255}


def test_resize_pair_averages_when_it_shrinks():
    image, label = sample(20, 30)
    small, _ = resize_pair(image, label, (10, 15))
    means = image.reshape(10, 2, 15, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 0.5


@pytest.mark.parametrize(
    ("short_side", "longest", "factor", "old", "new"),
    [
        # By hand, from the rule of mmcv's rescale_size, for scale (2048, 512) and (520, 520).
        (512, 2048, 1.0, (1944, 2592), (512, 683)),
        (512, 2048, 1.0, (256, 256), (512, 512)),
        (512, 2048, 1.0, (400, 2400), (341, 2048)),
        (520, 520, 1.0, (375, 500), (390, 520)),
        (520, 520, 1.0, (500, 334), (520, 347)),
        (520, 520, 0.5, (375, 500), (195, 260)),
    ],
)
def test_resize_keeps_the_shape_of_images(short_side, longest, factor, old, new):
    rule = Resize(short_sides=[1, short_side], max_long_side=longest)
    assert evaluated_size(old, rule, factor) == new


def test_scale_is_relative_to_the_resized_image():
    """A view at scale 0.5 of an image that `resize` halves is a quarter of it, and nothing is padded beside it."""
    image, label = sample(80, 120)
    rule = replace(PLAIN, crop=(20, 30), scale=(0.5, 0.5), resize=Resize(short_sides=[40], max_long_side=60))
    view, small, real = augment(image, label, rng(), rule)
    assert real.all() and view.shape == (3, 20, 30)
    assert (small == label[2::4, 2::4]).mean() > 0.6 and set(np.unique(small)) <= set(np.unique(label))
    mean = np.array(PLAIN.mean)[:, None, None], np.array(PLAIN.std)[:, None, None]
    assert abs((view * mean[1] + mean[0]).mean() - image.mean()) < 4


def test_distort_stays_within_the_recipe():
    """On one colour the largest changes of value, saturation and hue are those of the recipe."""
    colour = np.array((150, 90, 60), np.uint8)
    image = np.broadcast_to(colour, (1, 1, 3))
    results = np.stack([distort(image, rng(seed))[0, 0] for seed in range(800)]).astype(float)
    unchanged = (results == colour).all(axis=1).mean()
    assert 0.03 < unchanged < 0.12  # one in sixteen
    value = results.max(axis=1)
    assert 55 < value.min() < 75 and value.max() > 240
    hues = np.array([colorsys.rgb_to_hsv(*(result / 255))[0] for result in results])
    turn = (hues - colorsys.rgb_to_hsv(*(colour / 255))[0] + 0.5) % 1 - 0.5
    assert 0.08 < np.abs(turn).max() < 0.14  # 36 of 360 degrees, and the rounding of small saturations


def test_line_rounds_and_clips():
    assert line(2.0, -50.2)[[0, 100, 255]].tolist() == [0, 150, 255]
