"""Sign work orders and what workers report, and check such signatures: Ed25519, DSSE, in-toto.

``keys`` has the keys and the envelope, ``orders`` the statement about a manifest. The package
``cryptography`` (the extra ``sign``) is imported when a key is used, and not before.
"""
