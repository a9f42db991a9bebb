"""Compare receipts with expectations: the verdict, and its explanation for people."""
