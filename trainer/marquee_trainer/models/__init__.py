"""The models: one file each, all behind `Model`."""
