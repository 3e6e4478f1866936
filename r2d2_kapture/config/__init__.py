"""Settings of every stage: frozen dataclasses, one module a stage, no parsing."""
