"""Settings of every stage: frozen dataclasses, one module per stage, no parsing."""
