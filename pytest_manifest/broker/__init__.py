"""From entries to messages on a broker: publisher, preflight and the names of attempts."""
