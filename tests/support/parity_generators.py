"""Golden cases of the losses that generate the teacher's map from the student's."""

from support.parity import Case, Golden

from bcd.losses.fgd import Fgd
from bcd.losses.mgd import Mgd
from bcd.losses.reviewkd import ReviewKd, hierarchical_context_loss
from bcd.losses.vid import Vid


def _mgd(golden: Golden, mask: str):
    loss = Mgd(golden["student"].shape, golden["teacher"].shape, mask_ratio=golden.hyper["lambda_mgd"], mask=mask)
    modules = {"align": "align", "generation.0": "first", "generation.2": "second"}
    names = {f"{a}.{kind}": f"generate.{b}.{kind}" for a, b in modules.items() for kind in ("weight", "bias")}
    golden.load(loss, names)
    return golden.hyper["alpha_mgd"] * loss(golden["student"], golden["teacher"])


def _fgd(golden: Golden):
    hyper = golden.hyper
    loss = Fgd(
        golden["student"].shape,
        golden["teacher"].shape,
        temperature=hyper["temp"],
        foreground=hyper["alpha_fgd"],
        background=hyper["beta_fgd"],
        attention=hyper["gamma_fgd"],
        relation=hyper["lambda_fgd"],
    )
    modules = {"align": "align"}
    for letter, owner in (("s", "student_context"), ("t", "teacher_context")):
        modules[f"conv_mask_{letter}"] = f"{owner}.weight"
        modules |= {f"channel_add_conv_{letter}.{i}": f"{owner}.transform.{i}" for i in (0, 1, 3)}
    golden.load(loss, {f"{a}.{kind}": f"{b}.{kind}" for a, b in modules.items() for kind in ("weight", "bias")})
    height, width = hyper["img_shape"]
    boxes = [each / each.new_tensor([width, height, width, height]) for each in golden.list("boxes")]
    return loss(golden["student"], golden["teacher"], boxes=boxes)


def _reviewkd(golden: Golden):
    student, teacher = golden.list("student"), golden.list("teacher")
    loss = ReviewKd([s.shape for s in student], [t.shape for t in teacher], mid_channels=golden.hyper["mid_channel"])
    parts = {"conv1.0": "reduce", "conv1.1": "reduce_norm", "conv2.0": "output", "conv2.1": "output_norm"}
    parts["att_conv.0"] = "attention"
    names = {}
    for key in golden.data:
        _, _, official = key.partition("param/abfs.")
        level, _, rest = official.partition(".")
        part, _, kind = rest.rpartition(".")
        if kind in ("weight", "bias") and not key.startswith("grad_"):
            names[f"abfs.{official}"] = f"fusions.{len(student) - 1 - int(level)}.{parts[part]}.{kind}"
    golden.load(loss, names)
    return loss(student, teacher)


def _vid(golden: Golden):
    mid = len(golden.data["param/regressor.0.weight"])
    loss = Vid(golden["student"].shape, golden["teacher"].shape, mid_channels=mid)
    golden.load(loss, {name: name for name, _ in loss.named_parameters()})
    return loss(golden["student"], golden["teacher"])


CASES = [
    Case("mgd", "mgd_seg_align", lambda g: _mgd(g, "pixel")),
    Case("mgd", "mgd_cls_channelmask", lambda g: _mgd(g, "channel")),
    Case("fgd", "fgd_align", _fgd),
    Case("reviewkd", "reviewkd_det", _reviewkd),
    Case("reviewkd", "reviewkd_hcl_sizes", lambda g: hierarchical_context_loss(g.list("student"), g.list("teacher"))),
    Case("vid", "vid_repdistiller", _vid),
]
