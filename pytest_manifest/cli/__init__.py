"""Commands beside pytest: ``manifest-stack`` and ``manifest-ledger``."""
