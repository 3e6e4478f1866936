"""The public Python interface: the names of ``import r2d2_kapture``."""
