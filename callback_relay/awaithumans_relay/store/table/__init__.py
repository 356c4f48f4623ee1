"""The columns of the waits table and the statements on them."""
