"""Builds the images with buildah, inspects them, and runs them together on this machine."""
