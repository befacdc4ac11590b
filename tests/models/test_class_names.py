"""Classes of a file in another order or number than the dataset's."""

import pytest
import torch

from bcd.config.schema.models import SegmentationModel
from bcd.models import build
from bcd.models.class_names import ClassRows, by_name
from bcd.models.openmmlab import openmmlab_naming

THEIRS, OURS = ("road", "Traffic Light", "person"), ("person", "traffic_light")


def rows(count, each=1):
    return torch.arange(count * each, dtype=torch.float32).reshape(count * each, 1)


@pytest.mark.parametrize(
    ("layout", "count", "expected"),
    [
        (ClassRows("w"), 3, [2, 1]),
        (ClassRows("w", "first"), 4, [0, 3, 2]),
        (ClassRows("w", "last"), 4, [2, 1, 3]),
        (ClassRows("w", each=2), 6, [4, 5, 2, 3]),
        (ClassRows("w"), 6, [2, 1, 5, 4]),  # two anchors
        (ClassRows("w"), 4, [0, 1, 2, 3]),  # of another number of classes
        (ClassRows("v"), 3, [0, 1, 2]),  # another tensor
    ],
)
def test_rows_are_chosen_by_name(layout, count, expected):
    found = by_name({"head.w": rows(count)}, [layout], THEIRS, OURS)
    assert found.state["head.w"].flatten().tolist() == expected and not found.lacking


def test_a_class_that_the_file_lacks_leaves_its_classifiers_out():
    found = by_name({"w": rows(3), "v": rows(2)}, [ClassRows("w")], THEIRS, ("person", "tree"))
    assert found.lacking == "tree" and found.state.keys() == {"v"}


def test_unnamed_classes_are_taken_as_they_stand():
    state = {"w": rows(3)}
    assert (
        by_name(state, [ClassRows("w")], (), OURS).state == by_name(state, [ClassRows("w")], THEIRS, ()).state == state
    )


@pytest.mark.parametrize("meta", [{"CLASSES": THEIRS}, {"dataset_meta": {"classes": THEIRS}}])
def test_a_segmentor_of_openmmlab_with_other_classes(meta, tmp_path):
    torch.manual_seed(0)
    fields = {"backbone": "resnet18", "head": "psp", "channels": 8, "aux_channels": 8}
    source = build(SegmentationModel(**fields), 3).eval()
    rename = openmmlab_naming(source)
    state = {rename(key): value for key, value in source.state_dict().items()}
    torch.save({"meta": meta, "state_dict": state}, tmp_path / "w.pth")
    model = SegmentationModel(**fields, pretrained=str(tmp_path / "w.pth"))
    ours = build(model, 2, OURS).eval()
    assert ours.weights.unfilled == () and ours.weights.lacking == ""
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)["logits"], source(image)["logits"][:, [2, 1]])
    lacking = build(model, 2, ("person", "tree")).weights
    assert lacking.lacking == "tree" and "head.classifier.weight" in lacking.unfilled
