"""Sub-pixel registration of keypoints against patches of other images."""
