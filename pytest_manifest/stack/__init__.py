"""Broker, result store and workers: started by us (embedded, background) or reached by URL."""
