"""Backbones of timm as files: one whose maps come from a pyramid above a plain transformer, and one that is refused."""

import numpy as np
import pytest
import torch

from bcd.config.exportable import require_exportable
from bcd.config.schema.models import SegmentationModel
from bcd.errors import UserError
from bcd.export import onnx
from bcd.export.graph import graph_of
from bcd.export.runtime import torch_call
from bcd.models import build

pytest.importorskip("onnxruntime")


def described(backbone: str) -> SegmentationModel:
    return SegmentationModel(backbone=backbone, head="fpn", channels=8, output_stride=32)


def test_a_plain_transformer_takes_images_of_other_sizes():
    torch.manual_seed(0)
    graph = graph_of(build(described("vit_tiny_patch16_224"), 4).eval())
    model = onnx.convert(graph, np.zeros((1, 3, 64, 96), np.float32), dynamic=True, opset=onnx.OPSET)
    _, call = onnx.session(onnx.serialise(model, "{}"), 1)
    images = np.random.default_rng(0).normal(size=(2, 3, 40, 72)).astype(np.float32)
    (logits,) = torch_call(graph.module)(images)
    assert logits.std() > 1e-3
    np.testing.assert_allclose(call(images)[0], logits, atol=1e-4)


def test_open_sizes_are_refused_where_the_exporter_comes_to_no_end():
    model = described("swinv2_tiny_window8_256")
    require_exportable(model, dynamic=False, where="key")
    with pytest.raises(UserError, match="key: exporters come to no end with the backbone 'swinv2_tiny_window8_256'"):
        require_exportable(model, dynamic=True, where="key")
