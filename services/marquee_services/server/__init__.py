"""What all servers share: settings, logs, errors, health, reflection, shutdown."""
