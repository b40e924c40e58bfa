"""Errors of artifacts, shared by the trainer and the servers."""


class ArtifactError(Exception):
    """An artifact does not match its manifest, or lacks what its reader needs."""
