"""The benchmark: what serving costs, against references measured in the same run."""
