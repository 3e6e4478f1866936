"""What the package offers to Python: the names of ``import r2d2_kapture``."""
