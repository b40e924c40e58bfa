"""The contract of the API, held to any address."""
