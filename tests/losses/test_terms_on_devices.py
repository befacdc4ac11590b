"""Every term on tensors that do not lie on the CPU; there need be no GPU, see `support.far_device`.

Where the CPU has to wait for the device is a table of docs/results/scale.md, which these tests hold.
"""

from functools import partial
from inspect import isclass

import pytest
import torch
from support.far_device import FAR, Mixed, far_device, near, require, to, without_cuda
from test_losses import CASES, CLASSES, Maps, boxes, maps, partly_valid
from torch import Tensor

from bcd.losses import TERMS
from bcd.losses.masked import masked_mean


def test_the_device_finds_what_a_gpu_would_object_to():
    with far_device() as device:
        x = torch.ones(3, device=FAR)
        assert (x + torch.tensor(1.0)).device == FAR and near(2 * x).tolist() == [2, 2, 2]
        with pytest.raises(Mixed):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()
        assert not device.waits
        assert masked_mean(x, x > 0).item() == 1 and x[x > 0].tolist() == [1, 1, 1]
        assert set(device.waits["elsewhere"]) == {"reads a number", "chooses by a mask", "copies to the CPU"}


@pytest.mark.parametrize("term", TERMS)
def test_terms(term):
    """All pixels valid, and some; the numbers are those of the CPU."""
    with far_device() as device:
        for case in CASES:
            if case.term == term:
                whole = maps(case, dtype=torch.float32)
                for found in (whole, partly_valid(whole)):
                    expected, seen = (value_and_gradients(case, found, where) for where in ("cpu", FAR))
                    assert all(x.device == FAR for x in seen)
                    torch.testing.assert_close(near(seen), near(expected), rtol=1e-4, atol=1e-6)
    require(device, term)


def value_and_gradients(case, found: Maps, where: torch.device | str) -> list[Tensor]:
    """As `losses.test_losses.value_and_grads`, with everything on a device, and a loss with state moved there."""
    term = TERMS[case.term]
    images = {"image_label": found.label[0].masked_fill(~found.valid[0], 255), "boxes": boxes(len(found.valid[0]))}
    student, teacher = found.student, found.teacher
    facts = {"valid": found.valid, "label": found.label}
    if not term.joint:
        student, teacher, facts = student[0], teacher[0], {name: fact[0] for name, fact in facts.items()}
    student, teacher, facts = to(where, (student, teacher, facts | images))
    learning = [x.detach().requires_grad_() for x in (student if term.joint else [student])]
    torch.manual_seed(3)
    loss = partial(term.loss, **case.options)
    if isclass(term.loss):
        shapes = [[x.shape for x in one] if term.joint else one.shape for one in (student, teacher)]
        classes = {"classes": CLASSES} if term.reads_classes else {}
        loss = term.loss(*shapes, **case.options, **classes).to(where)
    value = loss(learning if term.joint else learning[0], teacher, **{name: facts[name] for name in term.facts})
    return [value.detach(), *torch.autograd.grad(value, learning)]


@pytest.mark.skipif(not torch.version.cuda, reason="this torch is built without CUDA")
def test_an_operator_without_a_cuda_form_is_named():
    operators = {torch.ops.aten.mkldnn_linear.default, torch.ops.aten.mm.default}
    assert without_cuda(operators) == {"aten::mkldnn_linear"}
