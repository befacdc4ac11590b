"""Images with objects, for detection and instance segmentation."""
