"""r2d2_kapture.io.images"""
