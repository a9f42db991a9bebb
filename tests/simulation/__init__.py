"""Whole sessions in a simulated world, killed anywhere, and held against what truly happened."""
