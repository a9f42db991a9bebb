"""Hide secrets: by the name that they stand under, by their form, and by their value.

``redact`` is for text that was written for people: errors, log lines, tracebacks. ``redacted`` is
for JSON values, whose names and structure say more than text does; it leaves a salted digest, so
that two secrets can be told apart. ``manifest_secret`` adds a value that is hidden wherever it is.
"""
