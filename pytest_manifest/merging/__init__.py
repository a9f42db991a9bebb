"""Merge the ledgers of a manifest's shards into one, to be judged and reported as one run."""
