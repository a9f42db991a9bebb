"""compose.yaml and Dockerfile as they are, on a real engine (``make test-compose``)."""
