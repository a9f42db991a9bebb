"""Send entries as messages to a broker: publisher, preflight, locating, names of attempts."""
