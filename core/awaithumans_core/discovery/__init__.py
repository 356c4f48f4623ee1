"""How scripts and workers find the `awaithumans-relay dev` of their project without any variable.

`awaithumans-relay dev` writes `.awaithumans/dev.json` into the project folder: the addresses of its servers and the
secrets that callers need. The file is found from the working directory or the nearest folder above it that has one.

Law: no secret leaves before the instance has proved itself. The file is used only if it is private to the user, names
this machine by number, and the relay at its address proves that it knows the secret of the file. If a killed process
has left the file behind, no program that listens on its port can give this proof.
"""

from awaithumans_core.discovery.confirmation import (
    CHALLENGE,
    INSTANCE_PATH,
    is_running,
    proof_of,
)
from awaithumans_core.discovery.file import FOLDER, DevFile, announce, nearest_file, project_folder, read, withdraw
from awaithumans_core.discovery.instance import DevInstance, UnusableFileError
from awaithumans_core.discovery.search import running_instance

__all__ = [
    "CHALLENGE",
    "FOLDER",
    "INSTANCE_PATH",
    "DevFile",
    "DevInstance",
    "UnusableFileError",
    "announce",
    "is_running",
    "nearest_file",
    "project_folder",
    "proof_of",
    "read",
    "running_instance",
    "withdraw",
]
