"""Builds the images, and runs them together on this machine."""
