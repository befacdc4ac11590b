"""A segmentation model: backbone, decode head and, for training, an auxiliary head."""

from torch import Tensor

from bcd.models.base import DenseModel
from bcd.models.layers import Backbone, Head, resize
from bcd.models.weights import InitialWeights

TAPS = {
    "stage1": "backbone:0",
    "stage2": "backbone:1",
    "stage3": "backbone:2",
    "stage4": "backbone:3",
    "neck": "head.neck",
    "logits": "head",
}


class Segmentor(DenseModel):
    """Backbone and head as one module.

    Of its taps, `neck` is what enters the dropout before the classifier; `logits` has the head's own resolution.
    """

    backbone: Backbone
    head: Head
    aux: Head | None

    def __init__(self, backbone: Backbone, head: Head, aux: Head | None = None):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.aux = aux
        self.taps = dict(TAPS)
        self.weights = InitialWeights()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map `(N, 3, H, W)` to `logits` `(N, classes, H, W)`, in training also to `aux`, given that head."""
        stages = self.backbone(image)
        size = image.shape[2:]
        outputs = {"logits": resize(self.head(stages), size)}
        if self.training and self.aux is not None:
            outputs["aux"] = resize(self.aux(stages), size)
        return outputs
