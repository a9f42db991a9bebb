"""What every stack has in common, asserted in the same words: in memory, embedded, external."""
