"""COLMAP 4: databases, models and image folders."""
