"""How good features and poses are: protocols of the field, on plain arrays."""
