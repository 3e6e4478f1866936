"""Training of local features; meets the rest of the package in the checkpoint."""
