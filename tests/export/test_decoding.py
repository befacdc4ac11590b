"""The decoder that ships with a detector, against the detector itself."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from bcd.config.exportable import require_exportable
from bcd.config.schema.models import DetectionModel
from bcd.errors import UserError
from bcd.export import decode
from bcd.export.graph import graph_of
from bcd.export.runtime import Opened, torch_call
from bcd.export.sidecar import Metadata, View
from bcd.export.standin import stand_in
from bcd.models.detection import build_detector

CLASSES = 3


def described(head: str, levels: list[int], **detection: object) -> DetectionModel:
    return DetectionModel(
        backbone="light", widths=[8] * 4, depths=[1] * 4, output_stride=32, head=head, channels=16,
        detection={"levels": levels, "max_detections": 20, **detection},
    )  # fmt: skip


def detector(head: str, levels: list[int], **detection: object):
    torch.manual_seed(0)
    built = build_detector(described(head, levels, **detection), CLASSES)
    for parameter in built.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)  # as they come, every anchor says the same
    parts = dict(built.eval().head.head.named_modules())
    last = ("classification_head.cls_logits", "regression_head.bbox_reg", "regression_head.bbox_ctrness")
    with torch.no_grad():
        said = graph_of(built).module(torch.randn(1, 3, 64, 96))
        for name, output in zip(last, said, strict=False):
            parts[name].weight /= output.std()  # so that no score is 1, as many would be equal
    return built


@pytest.mark.parametrize(("head", "levels"), [("fcos", [2, 5]), ("retinanet", [2, 5]), ("retinanet", [3, 7])])
@pytest.mark.parametrize("size", [(64, 96), (57, 80)])
def test_the_decoder_finds_what_the_detector_finds(head, levels, size):
    """In an image of another size than the padded input, at a threshold under which there is something to find."""
    model = detector(head, levels, convs=1)
    image = torch.zeros(1, 3, 64, 96)
    image[:, :, : size[0], : size[1]] = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = graph_of(model).module(image)[0].sigmoid().flatten()
        model.head.score_thresh = float(scores.topk(60).values[-1]) * (0.5 if head == "fcos" else 1)
        (expected,) = model.detect(image, [size], [size])
        graph = graph_of(model)
        outputs = {n: x.numpy() for n, x in zip(graph.outputs, graph.module(image), strict=True)}
    found = decode.decode(outputs, graph.decoding, size, (64, 96))
    assert len(found["boxes"]) == len(expected.boxes) > 3
    assert found["classes"].tolist() == expected.classes.tolist()
    np.testing.assert_allclose(found["scores"], expected.scores.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found["boxes"], expected.boxes.numpy(), atol=1e-3)


def test_a_file_detects_as_its_detector_does_in_a_batch_and_at_original_sizes():
    model = detector("fcos", [2, 5], convs=1)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    sizes, originals = [(64, 96), (57, 80)], [(128, 192), (171, 160)]
    with torch.no_grad():
        scores = graph_of(model).module(images)[0].sigmoid().flatten()
        model.head.score_thresh = float(scores.topk(120).values[-1]) * 0.5
        expected = model.detect(images, sizes, originals)
    graph = graph_of(model)
    metadata = Metadata.model_construct(
        outputs=list(graph.outputs), decoding=graph.decoding, dynamic=True,
        view=View(mean=[0.0] * 3, std=[1.0] * 3, height=64, width=96), task="detection",
    )  # fmt: skip
    found = stand_in(Opened("file", metadata, torch_call(graph.module))).detect(images, sizes, originals)
    for theirs, ours in zip(expected, found, strict=True):
        assert len(ours.boxes) == len(theirs.boxes) > 3
        assert ours.classes.tolist() == theirs.classes.tolist()
        torch.testing.assert_close(ours.boxes, theirs.boxes, atol=2e-3, rtol=0)
        torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)


def test_the_decoder_needs_nothing_but_numpy():
    """It is copied beside an exported file, without the rest of this package."""
    tree = ast.parse(Path(decode.__file__).read_text())
    roots = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    roots |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert roots == {"numpy", "collections", "typing", "__future__"}


def test_detectors_of_two_stages_are_refused():
    with pytest.raises(UserError, match="key: only RetinaNet and FCOS .* are exported"):
        require_exportable(described("faster_rcnn", [2, 5]), dynamic=False, where="key")
