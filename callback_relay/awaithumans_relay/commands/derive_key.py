"""`awaithumans-relay derive-key`: prints the webhook key, so that the server's root key need not leave the server."""

import base64

from awaithumans_core.errors import SettingsError
from awaithumans_core.settings import Settings
from awaithumans_core.signing import derive_webhook_key


def derived_keys() -> str:
    """Return the value for AWAITHUMANS_WEBHOOK_KEY: one key for each root key, separated by commas.

    Raises:
        SettingsError: The environment has no root key, or it is malformed.
    """
    roots = Settings.load().with_local_key().payload_key
    if not roots:
        raise SettingsError(
            "AWAITHUMANS_PAYLOAD_KEY is not set: run this where the awaithumans server's key is set, for instance on "
            "its machine, and set AWAITHUMANS_WEBHOOK_KEY of the relay to the printed value"
        )
    return ",".join(base64.urlsafe_b64encode(derive_webhook_key(root.get_secret_value())).decode() for root in roots)
