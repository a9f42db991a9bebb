"""A self-test of a stack: echo, sleep and database jobs in several mixes."""
