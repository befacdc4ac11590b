"""No format: the classes of COCO-Stuff, which the formats `cocostuff10k` and `cocostuff164k` share.

Caesar et al., "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018. Labels are numbered from 1: 80 things with
COCO's ids among 1..90 and 91 stuff classes, 92..182. The classes are these 171 in the order of their labels, as in
mmsegmentation (tools/dataset_converters/coco_stuff164k.py, coco_stuff10k.py).
"""

NO_PIXELS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""Things that have a name in labels.txt of nightrome/cocostuff but were never annotated."""
LABELS = tuple(label for label in range(1, 183) if label not in NO_PIXELS)
"""The label of each class."""
