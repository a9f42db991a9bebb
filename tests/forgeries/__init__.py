"""Forged reports: what a hostile publisher puts into a run's stream and result store.

``python -m tests.forgeries`` tries each kind on a real Valkey, without and with signatures, and
puts the table of them into ``docs/evidence/security.md``.
"""
