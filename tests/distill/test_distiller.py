"""A student and its frozen teacher in somebody else's loop: what the distiller holds, leaves alone and refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F
from support.project import ROOT
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bcd.config.load import load_params
from bcd.distill import Distiller, WeightedTerm, load_method
from bcd.distill.terms import WeightedTerms
from bcd.errors import UserError

TAPS = {"stage4": "body", "logits": "head:out"}
TERMS = (WeightedTerm(term="kd"), WeightedTerm(term="cwd", taps=["stage4"]))
IMAGE = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
LABEL = (IMAGE[:, 0] > 0).long()


class Head(nn.Conv2d):
    """A head whose output is a dict, as torchvision's models return."""

    def forward(self, x):
        return {"out": super().forward(x)}


class Net(nn.Module):
    """A body of some width with batch norm, and a head."""

    def __init__(self, width: int, classes: int = 5):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = Head(width, classes, 1)

    def forward(self, image):
        return F.interpolate(self.head(self.body(image))["out"], size=image.shape[2:], mode="bilinear")


@pytest.fixture
def models():
    torch.manual_seed(1)
    return Net(4).train(), Net(6).train()


@pytest.fixture
def distiller(models):
    return Distiller(*models, TERMS, TAPS, example=IMAGE)


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_the_losses_are_those_of_the_weighted_terms(models, distiller):
    student, teacher = models
    student(IMAGE)
    losses = distiller(IMAGE, valid=LABEL == 1)
    with torch.no_grad():
        maps = [{"stage4": m.body(IMAGE), "logits": m.head(m.body(IMAGE))["out"]} for m in models]
    expected = distiller.terms(*maps, step=0, total=1, valid=LABEL == 1)
    assert list(losses) == ["kd", "cwd"]
    for name, loss in losses.items():
        torch.testing.assert_close(loss.detach(), expected[name].detach())


def test_training_moves_the_student_and_its_projector_and_nothing_of_the_teacher(models, distiller):
    student, teacher = models
    kept = copy.deepcopy(teacher.state_dict())
    optimizer = torch.optim.Adam([*student.parameters(), *distiller.parameters()], lr=0.02)
    totals = []
    for _ in range(30):
        student(IMAGE)
        loss = sum(distiller(IMAGE).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert totals[-1] < 0.5 * totals[0]
    assert all(torch.equal(tensor, kept[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_it_holds_what_is_trained_beside_the_student_alone(models, distiller):
    ((name, projector),) = distiller.named_parameters()
    assert projector.shape == (6, 4, 1, 1) and list(distiller.state_dict()) == [name]
    again = Distiller(*models, TERMS, TAPS, example=IMAGE)
    again.load_state_dict(distiller.state_dict())
    assert torch.equal(next(again.parameters()), projector)


def test_the_teacher_stays_frozen_in_evaluation_mode_and_moves_along(models, distiller):
    student, teacher = models
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training
    whole = nn.ModuleDict({"student": student, "teacher": teacher, "distiller": distiller}).train()
    student(IMAGE)
    distiller(IMAGE)
    assert whole.training and student.training and not any(m.training for m in teacher.modules())
    distiller.double()
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}


def test_observing_leaves_the_student_as_it_was(models):
    student, teacher = models
    kept, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    Distiller(student, teacher, TERMS[:1], TAPS, example=IMAGE)
    assert student.training and all(torch.equal(x, kept[name]) for name, x in student.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)  # no term of these draws weights


def test_removed_hooks_are_gone(models, distiller):
    assert all(hooks(model) for model in models)
    distiller.remove()
    assert not any(hooks(model) for model in models)


def test_modules_of_the_teacher_may_have_other_names(models):
    student, teacher = models
    teacher = nn.Sequential(teacher)
    of_teacher = {"stage4": "0.body", "logits": "0.head:out"}
    distiller = Distiller(student, teacher, TERMS, TAPS, teacher_taps=of_teacher, example=IMAGE)
    student(IMAGE)
    assert all(loss.isfinite() for loss in distiller(IMAGE).values())


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_autocast(models, distiller, where):
    """The call may stand inside the autocast block of the student's forward pass, or behind it."""
    student, _ = models
    with torch.autocast("cpu", torch.bfloat16):
        student(IMAGE)
        losses = distiller(IMAGE) if where == "inside" else None
    if losses is None:
        losses = distiller(IMAGE)
    student(IMAGE)
    exact = distiller(IMAGE)
    sum(losses.values()).backward()
    assert next(distiller.parameters()).grad.isfinite().all()
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.1, atol=1e-3)


class Both(nn.Module):
    """What DistributedDataParallel wraps: the student with what is trained beside it."""

    def __init__(self, student: nn.Module, distiller: Distiller):
        super().__init__()
        self.student, self.distiller = student, distiller

    def forward(self, image, label):
        return {"task": F.cross_entropy(self.student(image), label)} | self.distiller(image)


def test_in_distributed_data_parallel(models, distiller, tmp_path):
    student, _ = models
    expected = copy.deepcopy(Both(*models[:1], distiller))
    sum(expected(IMAGE, LABEL).values()).backward()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        both = DistributedDataParallel(Both(student, distiller))
        for _ in range(2):
            both.zero_grad()
            sum(both(IMAGE, LABEL).values()).backward()
    finally:
        torch.distributed.destroy_process_group()
    assert len(list(both.parameters())) == len(list(student.parameters())) + 1
    for (name, ours), theirs in zip(both.module.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_a_copy_has_models_of_its_own(models):
    """As is made for an exponential moving average, or for another process."""
    student, teacher = models
    both, twin = (copy.deepcopy(Both(student, Distiller(student, teacher, TERMS, TAPS, example=IMAGE))) for _ in "12")
    both(IMAGE, LABEL)
    with pytest.raises(UserError, match="was not produced"):
        twin.distiller(IMAGE)
    assert twin(IMAGE, LABEL).keys() == {"task", "kd", "cwd"}


def test_a_schedule_needs_the_step(models):
    student, teacher = models
    terms = [WeightedTerm(term="kd", weight=2.0, schedule="linear")]
    distiller = Distiller(student, teacher, terms, TAPS, example=IMAGE)
    student.eval()
    losses = []
    for step in (0, 5):
        student(IMAGE)
        losses.append(distiller(IMAGE, step=step, total=10)["kd"])
    torch.testing.assert_close(losses[1], losses[0] / 2)
    student(IMAGE)
    with pytest.raises(UserError, match="'kd' has a schedule; call the distiller with step and total"):
        distiller(IMAGE)


def test_without_gradients_it_measures(models, distiller):
    student, _ = models
    with torch.no_grad():
        student(IMAGE)
        assert not distiller(IMAGE)["kd"].requires_grad


def test_mistakes_are_told(models, distiller):
    student, teacher = models
    with pytest.raises(UserError, match="run the model once before each reading"):
        distiller(IMAGE)
    with pytest.raises(UserError, match="the model has no module 'boby'; did you mean 'body'"):
        Distiller(student, teacher, TERMS, TAPS | {"stage4": "boby"}, example=IMAGE)
    with pytest.raises(UserError, match="asks for tap 'neck', but the student offers stage4, logits"):
        Distiller(student, teacher, load_method("at").terms, TAPS, example=IMAGE)
    memory = [WeightedTerm(term="cirkd_memory", taps=["stage4"])]
    with pytest.raises(UserError, match="'cirkd_memory' remembers something per class; say the number of classes"):
        Distiller(student, teacher, memory, TAPS, example=IMAGE)
    Distiller(student, teacher, memory, TAPS, example=IMAGE, classes=5)
    student.requires_grad_(False)
    student(IMAGE)
    with pytest.raises(UserError, match="the student's tap 'logits' is frozen"):
        distiller(IMAGE)


@pytest.mark.parametrize("name", ["cwd", "skd-original"])
def test_a_method_by_its_name_is_that_of_params(name):
    assert load_method(name) == load_params(ROOT / "params").methods[name]


def test_an_unknown_method_is_told():
    with pytest.raises(UserError, match="^method: 'cdw' is not defined; did you mean 'cwd'"):
        load_method("cdw")


def test_a_method_without_terms_has_no_losses(models):
    student, teacher = models
    distiller = Distiller(student, teacher, load_method("none").terms, {}, example=IMAGE)
    student(IMAGE)
    assert distiller(IMAGE) == {} and isinstance(distiller.terms, WeightedTerms)
