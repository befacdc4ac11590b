"""Models, datasets and panels that cannot work are refused when params are read, before anything is fetched."""

import pytest
from test_config import edit, load

from bcd.config.architectures import SEGMENTATION_HEADS
from bcd.config.load import load_params
from bcd.config.schema.models import SegmentationModel
from bcd.config.schema.recipes import CropView
from bcd.config.suites import load_suite
from bcd.errors import UserError
from bcd.runs.resolve import _require_room, overridden

STUDENT = "smoke-student: {backbone: light, output_stride: 16,"
SUITE = "suites/smoke.yaml"
# fmt: off
CASES = [  # file, what stands there, what is written instead, what the message says
    ("models.yaml", STUDENT, STUDENT.replace("light", "convnext_tiny"),
     ["models.yaml: smoke-student", "convnext_tiny"]),
    ("models.yaml", STUDENT, STUDENT.replace("light", "levit_128"), ["backbone", "levit_128"]),
    ("models.yaml", "backbone: resnet18,", "backbone: resnet1,", ["'resnet1' is not known", "did you mean 'resnet18'"]),
    ("models.yaml", "backbone: resnet18,", "backbone: convnext_tiny.fb_in1k,",
     ["'convnext_tiny.fb_in1k' has a tag", "write convnext_tiny, and"]),
    ("models.yaml", "head: psp", "head: pps", ["head: 'pps' is not known", "did you mean 'psp'"]),
    ("models.yaml", "backbone: resnet18,", "backbone: mit_b0, output_stride: 8,", ["'mit_b0' has 32, not 8"]),
    ("models.yaml", "backbone: resnet18,", "backbone: resnet18, widths: [1, 1, 1, 1],", ["only 'light' has them"]),
    ("models.yaml", "depths: [1, 1, 1, 1], head: retinanet", "depths: [1, 1, 1], head: retinanet",
     ["depths", "at least 4 are needed"]),
    ("models.yaml", "fc_channels: 16", "fc_channels: 0", ["detection.fc_channels", "greater than or equal to 1"]),
    ("models.yaml", "head: retinanet, channels: 8, detection: {levels: [2, 5],",
     "head: retinanet, channels: 8, detection: {fc_channels: 3, levels: [2, 5],", ["means nothing to 'retinanet'"]),
    ("models.yaml", "detection: {engine: detectron2, levels: [3, 5], convs: 2}",
     "detection: {engine: detectron2, levels: [3, 5], convs: 2, pyramid_norm: batch}",
     ["coco-mini-retinanet", "detection.pyramid_norm: only the engine torchvision has it"]),
    (SUITE, "teacher: smoke-teacher, teacher_recipe: smoke, student: smoke-student",
     "teacher: smoke-retinanet, teacher_recipe: smoke, student: smoke-student",
     ["'smoke-retinanet'", "head for segmentation"]),
    (SUITE, "student: smoke-maskrcnn", "student: smoke-retinanet", ["'smoke-retinanet' has no masks", "mask_rcnn"]),
    (SUITE, "{methods: [none, bcd], images: 2}", "{methods: [none, bdc], images: 2}",
     ["panels.methods: 'bdc' is no method of table"]),
    (SUITE, "{methods: [none, bcd], images: 2}", "{methods: [none], images: 9}", ["panels.images", "8"]),
    ("datasets.yaml", "format: camvid", "format: canvid", ["'canvid' is not known", "did you mean 'camvid'"]),
    ("datasets.yaml", "scenes-smoke:\n  format: scenes", "scenes-smoke:\n  format: voc",
     ["format 'voc' has no use for it"]),
    ("datasets.yaml", "classes: [", "classes: [sky, ", ["classes has 'sky' twice"]),
    ("datasets.yaml", "  variant_of: scenes\n", "  variant_of: scenes\n  files: ../../x\n", ["files", "variant_of"]),
    (SUITE, "dataset: scenes-smoke, teacher: smoke-retinanet", "dataset: camvid, teacher: smoke-retinanet",
     ["'camvid' has no objects", "detection"]),
    (SUITE, "methods: [none, bcd]", "methods: [none, bcd, {name: x, base: kd, set: {kd.taps: [p3]}}]",
     ["'x'", "tap 'p3'"]),
    (SUITE, "methods: [none, kd, bcd]", "methods: [none, kd, bcd, {name: x, base: kd, set: {kd.taps: [p7]}}]",
     ["'x'", "tap 'p7'"]),
    (SUITE, "methods: [none, bcd]", "methods: [none, bcd, {name: teacher, base: kd}]", ["cannot be called 'teacher'"]),
    (SUITE, "recipe: smoke-few}", "recipe: smoke-few}\n      - {dataset: scenes-smoke-few, teacher: smoke-teacher, "
     "teacher_dataset: scenes-smoke, teacher_recipe: smoke, student: smoke-student, recipe: smoke-few}",
     ["one pair stands twice"]),
    (SUITE, "metrics: [ap, ap50, ap75, ap_s, ap_m, ap_l]", "metrics: [ap, ap]", ["metrics: 'ap' stands twice"]),
    (SUITE, "recipe: smoke-few}", "recipe: smoke-few}\n    seeds: 1000000", ["seeds", "1000"]),
    (SUITE, "dataset: scenes-smoke-few,", "dataset: scenes-smoke,", ["unlabelled_batch 2", "is labelled"]),
    ("methods.yaml", "  terms: []", "  terms: [{term: kd, taps: [logits], weight: 1.0}]",
     ["'none' is the student alone"]),
    ("methods.yaml", "taps: [stage1, stage2,", "taps: [stage1, stage1,", ["'stage1' stands twice"]),
    ("models.yaml", "channels: 8, dropout: 0.0}", "channels: 8, dropout: 0.0, pretrained: timmm}",
     ["none of ('none', 'timm', 'index')"]),
    ("models.yaml", "channels: 8, dropout: 0.0}", "channels: 8, dropout: 0.0, pretrained: timm}",
     ["no weights of 'light'"]),
    ("datasets.yaml", "sha256: 69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929\n", "sha256: abc\n",
     ["coco2017", "sha256", "'abc' is no such hash", "64 digits"]),
    ("datasets.yaml", "variant_of: scenes\n", "variant_of: [scenes]\n", ["variant_of", "expected the name"]),
    ("datasets.yaml", "variant_of: scenes-smoke\n", "variant_of: scenes-few\n", ["'scenes-few' is itself a variant"]),
    ("datasets.yaml", "classes: [sky,", "classes: ['sky ',", ["without blanks around"]),
    ("recipes.yaml", "  lr: 0.005\n", "  lr: 0.005\n  min_lr: 1.0\n", ["min_lr", "above lr"]),
    ("recipes.yaml", "  view: {crop: [40, 32]}\n",
     "  view: {crop: [40, 32]}\n  sliding: {crop: [10, 10], stride: [20, 20]}\n", ["pixels would be left out"]),
    ("recipes.yaml", "  batch: 2\n  view: {crop: [40, 32]}\n", "  batch: 2\n  ohem: {}\n  view: {crop: [40, 32]}\n",
     ["smoke", "ohem.min_kept: 100000", "the 40 x 32 of view.crop", "choose fewer"]),
    ("recipes.yaml", "  batch: 2\n  view: {crop: [40, 32]}\n",
     "  batch: 2\n  ohem: {threshold: 1.5, min_kept: 9}\n  view: {crop: [40, 32]}\n", ["ohem.threshold", "equal to 1"]),
    ("methods.yaml", "operator: residual", "operator: sobel", ["operator: 'sobel' is not allowed", "residual"]),
    ("methods.yaml", "temperature: 1.0", "temperature: hot", ["temperature", "'hot'"]),
    ("methods.yaml", "weight: 1.0", "weight: .inf", ["weight", "finite"]),
    ("recipes.yaml", "  batch: 2\n  view: {crop: [40, 32]}\n", "  batch: 1\n  view: {crop: [1, 1]}\n",
     ["'smoke' has batch 1 at crop 1 x 1", "batch to 2"]),
    ("recipes.yaml", "crop: [40, 32]", "crop: [100000, 32]", ["view.crop[0]", "16384"]),
    ("recipes.yaml", "  batch: 2\n", "  batch: 1000000000\n", ["batch", "65536"]),
    ("suites/smoke.yaml", "seeds: 2", "seeds: 2\nfirst_seed: -1", ["first_seed", "greater than or equal to 0"]),
    ("recipes.yaml", "threads: 1", "threads: 100000", ["threads", "1024"]),
    ("recipes.yaml", "scale: [0.75, 1.5]", "scale: [2.0, 1.0]", ["scale", "smaller factor first"]),
    ("recipes.yaml", "lr: 0.005", "lr: .nan", ["lr", "finite"]),
    ("recipes.yaml", "  steps: 400\n", "  steps: 010\n", ["steps", "'010'"]),
]
# fmt: on


@pytest.mark.parametrize(("file", "old", "new", "said"), CASES)
def test_it_is_one_sentence_that_names_the_entry(project, file, old, new, said):
    edit(project, file, old, new)
    with pytest.raises(UserError) as error:
        load(project)
    for part in said:
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("count", [256, 300])
def test_more_classes_than_eight_bits_hold_are_refused(project, count):
    edit(
        project,
        "datasets.yaml",
        "  format: camvid\n",
        f"  format: camvid\n  things: {[f'c{i}' for i in range(count)]}\n",
    )
    text = (project / "params/datasets.yaml").read_text()
    head, _, rest = text.partition("  format: camvid\n")
    start = rest.index("  classes:")
    end = rest.index("\n  splits")
    rest = rest[:start] + f"  classes: {[f'c{i}' for i in range(count)]}" + rest[end:]
    (project / "params/datasets.yaml").write_text(head + "  format: camvid\n" + rest)
    with pytest.raises(UserError, match="camvid.*classes.*255"):
        load(project)


def test_one_class_is_legal(project):
    path = project / "params/datasets.yaml"
    text = path.read_text()
    first = text.index("  things: [", text.index("scenes-smoke:"))
    end = text.index("\n", first)
    path.write_text(text[:first] + "  things: [vehicle]" + text[end:])
    runs = load(project)
    assert any(run.training.data.classes == ["vehicle"] for run in runs.values() if run.training.task == "detection")


def test_a_suite_is_made_of_plain_suites_and_renames_no_table(project):
    folder = project / "params/suites"
    (folder / "a.yaml").write_text("description: d\nof: [b]\n")
    (folder / "b.yaml").write_text("description: d\nof: [smoke]\n")
    with pytest.raises(UserError, match="a is made of this suite, which is made of others itself; name smoke in a"):
        load_suite("a", project / "params")
    (folder / "b.yaml").write_text("description: d\nof: [smoke]\nset: {tables.*.name: x}\n")
    with pytest.raises(UserError, match="a table's name is not replaced"):
        load_suite("b", project / "params")


def test_params_beside_another_copy_of_the_code_are_refused(project):
    (project / "bcd").mkdir()
    (project / "bcd/__init__.py").write_text("")
    with pytest.raises(UserError, match="run `make install` in this folder"):
        load_params(project / "params")


def test_a_weight_of_a_head_that_the_model_lacks_is_an_error(project):
    run = load(project)["semantic/scenes-smoke/smoke-student-from-smoke-teacher/kd/s0"]
    with pytest.raises(UserError, match="has no auxiliary head"):
        overridden(run, {"recipe.aux_weight": 0.9})


@pytest.mark.parametrize("head", SEGMENTATION_HEADS)
def test_a_head_is_refused_exactly_where_it_cannot_train(project, head):
    """One image, as large as a cell of the last stage or larger: what the params allow is what torch can do."""
    import torch

    from bcd.models import build

    values = {"backbone": "light", "head": head, "channels": 8, "output_stride": 16}
    model = SegmentationModel(**values, widths=[8, 8, 8, 8], depths=[1, 1, 1, 1])
    recipe = load_params().recipes["smoke"]
    for side in (16, 33):
        shown = recipe.model_copy(update={"batch": 1, "view": CropView(crop=[side, side])})
        try:
            build(model, 3).train()(torch.zeros(1, 3, side, side))
            works = True
        except ValueError:
            works = False
        try:
            _require_room("m", model, "r", shown, "here")
            allowed = True
        except UserError:
            allowed = False
        assert works == allowed, side
