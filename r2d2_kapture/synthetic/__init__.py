"""A textured room that is drawn, rendered and written as kapture by our own code."""
