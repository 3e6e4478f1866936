"""Stages: ``run(config, ...) -> Report``, each resumable, each a command."""
