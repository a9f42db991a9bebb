"""Test a stack itself: echo, sleep and database jobs in several mixes."""
