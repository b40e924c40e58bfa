"""Errors that the trainer and the servers share."""


class ArtifactError(Exception):
    """A release or one of its files is missing or damaged."""
