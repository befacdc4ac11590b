import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from bcd.distill.taps import Taps
from bcd.errors import UserError


class Pyramid(nn.Module):
    """Returns two maps, in the container that `wrap` makes of them."""

    def __init__(self, wrap):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 2, stride=2)
        self.wrap = wrap

    def forward(self, image):
        fine = self.fine(image)
        return self.wrap([fine, self.coarse(fine)])


class Model(nn.Module):
    def __init__(self, wrap=list, last=1):
        super().__init__()
        self.backbone, self.last = Pyramid(wrap), last
        self.head = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1))
        self.spare = nn.Conv2d(6, 5, 1)

    def forward(self, image, use_head=True):
        features = self.backbone(image)
        return self.head(features[self.last]) if use_head else features


PATHS = {"stage1": "backbone:0", "stage2": "backbone:-1", "norm": "head.0", "logits": "head"}


@pytest.fixture
def image():
    return torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def test_reads_what_the_modules_return_with_its_graph(image):
    model = Model()
    taps = Taps(model, PATHS)
    output = model(image)
    read = taps.read()
    assert list(read) == list(PATHS)
    assert {name: tuple(t.shape) for name, t in read.items()} == {
        "stage1": (2, 4, 6, 8), "stage2": (2, 6, 3, 4), "norm": (2, 6, 3, 4), "logits": (2, 5, 3, 4)
    }  # fmt: skip
    assert read["logits"] is output
    read["stage1"].sum().backward()
    assert model.backbone.fine.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("wrap", "last", "paths"),
    [
        (tuple, 1, ("backbone:0", "backbone:1")),
        (lambda x: {"p2": x[0], "p3": x[1]}, "p3", ("backbone:p2", "backbone:p3")),
        (lambda x: {"0": x[0], "1": x[1]}, "1", ("backbone:0", "backbone:1")),  # torchvision's pyramids
        (lambda x: {0: x[0], 1: x[1]}, 1, ("backbone:0", "backbone:1")),
    ],
)
def test_picks_from_containers(image, wrap, last, paths):
    model = Model(wrap, last)
    taps = Taps(model, dict(zip(("fine", "coarse"), paths, strict=True)))
    model(image)
    read = taps.read()
    assert read["fine"].shape == (2, 4, 6, 8) and read["coarse"].shape == (2, 6, 3, 4)


def test_works_without_gradients(image):
    model = Model().eval()
    taps = Taps(model, PATHS)
    with torch.inference_mode():
        model(image)
    assert not taps.read()["logits"].requires_grad


def test_an_unknown_path_names_the_nearest():
    with pytest.raises(UserError, match=r"'stage1'.*'backbon'.*did you mean 'backbone'\?"):
        Taps(Model(), {"stage1": "backbon:0"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("backbone:7", "has no '7'; it offers indices 0 to 1"),
        ("backbone:p2", "has no 'p2'"),
        ("backbone", "not one tensor; choose from indices 0 to 1"),
    ],
)
def test_a_wrong_choice_names_what_there_is(image, path, message):
    model = Model()
    Taps(model, {"stage1": path})
    with pytest.raises(UserError, match=message):
        model(image)


def test_a_wrong_key_names_the_keys(image):
    model = Model(lambda x: {"p2": x[0], "p3": x[1]}, "p3")
    Taps(model, {"stage1": "backbone:p9"})
    with pytest.raises(UserError, match="keys p2, p3"):
        model(image)


def test_a_module_that_did_not_run_is_an_error(image):
    model = Model()
    taps = Taps(model, {"spare": "spare"})
    model(image)
    with pytest.raises(UserError, match=r"'spare' \(spare\) was not produced"):
        taps.read()


def test_tensors_of_an_earlier_pass_are_never_read(image):
    model = Model()
    taps = Taps(model, PATHS)
    model(image)
    model(image, use_head=False)
    with pytest.raises(UserError, match="'norm'"):
        taps.read()
    model(image)
    taps.read()
    with pytest.raises(UserError, match="not produced"):
        taps.read()


def test_nothing_is_kept_after_reading(image):
    model = Model()
    taps = Taps(model, PATHS)
    model(image)
    alive = [weakref.ref(t) for t in taps.read().values()]
    gc.collect()
    assert all(ref() is None for ref in alive)


def test_remove_takes_the_hooks_off(image):
    model = Model()
    with Taps(model, PATHS) as taps:
        model(image)
        assert taps.read()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    taps.remove()  # twice does no harm


def test_a_copy_has_its_own_taps(image):
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = Model()
            self.taps = Taps(self.model, PATHS)

    owner = Owner()
    owner.model(image)  # tensors with a graph must not stop the copy
    twin = copy.deepcopy(owner)
    logits = twin.model(2 * image)
    assert twin.taps.read()["logits"] is logits
    assert not torch.equal(owner.taps.read()["logits"], logits)
    twin.taps.remove()
    assert owner.model.head._forward_hooks and not twin.model.head._forward_hooks


def test_a_copy_of_the_model_does_not_reach_these_taps(image):
    model = Model()
    taps = Taps(model, PATHS)
    logits = model(image)
    copy.deepcopy(model)(2 * image)
    assert taps.read()["logits"] is logits


def test_survives_distributed_data_parallel(image):
    model = Model()
    taps = Taps(model, PATHS)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
        logits = wrapped(image)
        read = taps.read()
        torch.testing.assert_close(read["logits"], logits)
        (logits.sum() + read["stage1"].square().sum()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert model.backbone.fine.weight.grad.abs().sum() > 0
