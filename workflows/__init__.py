"""Hold workflows: each folder plans a kind of manifest and verifies its receipts."""
