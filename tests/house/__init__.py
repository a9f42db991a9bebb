"""What holds the project together: packaging, containers, locks, layers, words."""
