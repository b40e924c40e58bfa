"""Changes a running deployment under load, and counts the calls that fail: `make deploy-live`."""
