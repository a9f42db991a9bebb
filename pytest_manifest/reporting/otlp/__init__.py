"""Say what a run was in the words of OpenTelemetry, and send it to a collector."""
