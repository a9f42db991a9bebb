"""The documents: every command and snippet in them runs, and their tables hold."""
