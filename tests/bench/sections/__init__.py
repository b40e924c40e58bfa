"""The measurements of the benchmark: one module for each section of the report."""
