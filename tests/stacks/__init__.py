"""Every kind of stack that a project may have: the contract's work run on it, and what was told."""
