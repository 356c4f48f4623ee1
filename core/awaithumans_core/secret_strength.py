"""Whether a secret is hard to guess, and the command that generates one that is."""

MIN_SECRET_CHARS = 32
"""Minimum length of a secret. Shorter ones are refused."""

GENERATE = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
"""Prints a random secret of 43 characters, which is also base64 of 32 random bytes."""


def weakness(secret: str) -> str | None:
    """Why this secret can be guessed, without repeating it; None if it cannot."""
    if len(secret) < MIN_SECRET_CHARS:
        return f"has {len(secret)} characters; at least {MIN_SECRET_CHARS} are needed"
    if secret in (secret + secret)[1:-1]:  # "aaaa", and "abab" too
        return "repeats one text"
    return None
