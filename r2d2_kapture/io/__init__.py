"""Files: images, datasets, feature formats. Nothing here imports torch."""
