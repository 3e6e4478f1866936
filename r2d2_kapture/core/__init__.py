"""Pure torch: pyramid levels, keypoint selection, fast inference. No files."""
