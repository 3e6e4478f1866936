"""Networks and their checkpoints; nothing here knows of kapture or pycolmap."""
