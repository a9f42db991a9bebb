"""Pipelines of CI: the project's own and the templates, checked, and their commands run."""
