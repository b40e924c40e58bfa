"""The scoring service: one implementation, run as the CF service and as the inference service."""
