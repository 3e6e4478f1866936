"""Feature files of other tools: npz, mat, h5, COLMAP text."""
