"""The plugin in real pytest processes, on the embedded stack."""
