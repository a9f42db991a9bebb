"""Mutants of the code that judges: each small change to it must turn a test red."""
