"""Commands: one module each, on shared flags, errors and exit codes."""
