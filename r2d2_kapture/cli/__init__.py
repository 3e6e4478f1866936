"""Commands: one module each, with shared flags, errors and exit codes."""
