"""The ledgers of a manifest's shards made one, to be judged and reported as one run."""
