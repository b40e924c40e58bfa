"""Contract tests: they check the promises of the API at any address."""
