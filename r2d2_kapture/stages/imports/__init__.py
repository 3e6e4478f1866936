"""Imports: kapture datasets of what other tools and devices made."""
