"""The serving benchmark: throughput, latency and memory against references of the same run."""
