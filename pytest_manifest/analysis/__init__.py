"""What a run amounts to, read from its ledger: for every report, by pure functions."""
