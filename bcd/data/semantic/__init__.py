"""Images with label maps, for segmentation."""
