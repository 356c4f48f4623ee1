"""`awaithumans-relay init`: writes a commented `.env` for a real installation, with a secret of its own.

Law: what a file contains stays as it is. A secret that was made once is in use on several machines, so it is never made
again, and a value is never changed.
"""

import os
import re
import secrets
import shutil
import stat
import subprocess
from pathlib import Path

from awaithumans_core.errors import SettingsError

SECRET = "AWAITHUMANS_RELAY_SECRET"  # noqa: S105 - the name of a variable

TEMPLATE = """\
# Settings of awaithumans-workflows. `awaithumans-relay` reads this file in its working directory; a variable of the
# environment wins over a line here. It also serves systemd (EnvironmentFile=) and containers (--env-file): write values
# without quotes, and no comment behind a value. Keep it private, because it holds secrets.

# --- The relay and all its callers: Temporal workers, LangGraph processes and servers. Scripts need the first two. ---

# The awaithumans server, for instance https://humans.example.com. Empty: http://localhost:3001
AWAITHUMANS_URL=

# The token for its API: the value that this variable has on the server.
AWAITHUMANS_ADMIN_API_TOKEN=

# The relay, as the awaithumans server and the callers reach it, for instance https://relay.example.com
AWAITHUMANS_RELAY_URL=

# Signs callback URLs. The same for the relay and all its callers, 32 characters or more. Generate it once, with
# `awaithumans-relay init` or: python -c "import secrets; print(secrets.token_urlsafe(32))"
# To replace it, write new,old until every process has the new one.
AWAITHUMANS_RELAY_SECRET=

# --- The relay only. ---

# Proves that a callback is from your awaithumans server. Run `awaithumans-relay derive-key` on the server's machine, so
# that the server's own key (AWAITHUMANS_PAYLOAD_KEY) stays there.
AWAITHUMANS_WEBHOOK_KEY=

# Opens the operator's page (/operate) and API. Generate it like the secret above. Empty: both are closed.
AWAITHUMANS_RELAY_OPERATOR_TOKEN=

# Where the relay keeps its waits. Default: the SQLite file awaithumans-relay.db in its working directory. It must
# outlive the process. With the extra `postgres` also PostgreSQL.
#AWAITHUMANS_RELAY_DATABASE=postgresql://USER:PASSWORD@HOST/NAME

# Percentage of the time that its requests for open tasks may take. Default: 2
#AWAITHUMANS_RELAY_SWEEP_PERCENT=5

# --- If they apply. ---

# The awaithumans server as people reach it, for links. Empty: AWAITHUMANS_URL
AWAITHUMANS_PUBLIC_URL=

# A secured Temporal cluster, for relay and workers. Without them: the address of --temporal, without TLS.
#TEMPORAL_ADDRESS=
#TEMPORAL_NAMESPACE=
#TEMPORAL_API_KEY=
#TEMPORAL_TLS_SERVER_CA_CERT_PATH=

# The key of a LangGraph server that requires one, for the relay.
#LANGGRAPH_API_KEY=
"""


def init(path: Path) -> list[str]:
    """Write the file, or add to it what is missing, and return the lines to show.

    Raises:
        SettingsError: it cannot be written, or it is a link or belongs to another user.
    """
    try:
        before = _content(path)
        content, made = _completed(before)
        if content != before:
            _write(path, content)
        elif path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SettingsError(f"{path} cannot be written: {reason}") from None
    if before is None:
        state = "written"
    else:
        state = "complete already" if content == before else "completed; your lines are unchanged"
    lines = [f"{path}: {state}. Only you can read it"]
    if made:
        lines.append(f"{SECRET} is made. Give the same value to every caller of this relay")
    lines += [
        f"{name} is also set in the environment, which wins over the file"
        for name in sorted(_names(content))
        if os.environ.get(name, "").strip()
    ]
    lines += _git_notes(path)
    if empty := [name for name in _REQUIRED if not _value(content, name)]:
        lines.append(f"Fill in: {', '.join(empty)}")
    lines.append(
        "Then start `awaithumans-relay serve`, and check everything with `awaithumans-relay doctor` and the same flags"
    )
    return lines


_REQUIRED = ("AWAITHUMANS_URL", "AWAITHUMANS_ADMIN_API_TOKEN", "AWAITHUMANS_RELAY_URL", "AWAITHUMANS_WEBHOOK_KEY")
_LINE = re.compile(
    r"^[ \t]*(?P<off>#[ \t#]*)?(?:export[ \t]+)?(?P<quote>'?)(?P<name>[A-Z][A-Z0-9_]*)(?P=quote)[ \t]*="
    r"[ \t]*(?P<value>.*?)[ \t\r]*$",
    re.MULTILINE,
)
"""A line that gives a value to a variable, or that would if it were no comment. All that a reader of `.env` takes."""


def _completed(before: str | None) -> tuple[str, bool]:
    """Return the content of the file with what is missing in it, and whether a secret was made for it."""
    content = TEMPLATE if before is None else _with_missing_parts(before)
    if _value(content, SECRET):
        return content, False
    line = _lines(content, SECRET)[-1]  # the last line wins
    return content[: line.start("value")] + secrets.token_urlsafe(32) + content[line.end("value") :], True


def _with_missing_parts(content: str) -> str:
    """Append the parts of the template none of whose variables is named in the content, not even in a comment."""
    named = {line["name"] for line in _LINE.finditer(content) if not line["off"] or line["name"] != SECRET}
    parts = [part.strip("\n") for part in TEMPLATE.split("\n\n")]
    missing = [part for part in parts if (names := _names(part)) and not names & named]
    return "\n\n".join([content.rstrip("\n"), *missing]) + "\n" if missing else content


def _names(part: str) -> set[str]:
    return {line["name"] for line in _LINE.finditer(part)}


def _lines(content: str, name: str) -> list[re.Match[str]]:
    """Return the lines that give a value to a variable."""
    return [line for line in _LINE.finditer(content) if line["name"] == name and not line["off"]]


def _value(content: str, name: str) -> str:
    """Return the value that the content gives to a variable; the last line wins. Empty: it gives none."""
    values = ["" if line["value"].startswith("#") else line["value"].strip("\"'") for line in _lines(content, name)]
    return next((value for value in reversed(values) if value), "")


def _content(path: Path) -> str | None:
    """Return what the file contains; None if there is none.

    Raises:
        SettingsError: it is a link, or belongs to another user.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise SettingsError(f"{path} is a link or no file: give the file itself, with --file")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise SettingsError(f"{path} belongs to another user: run this as that user, or give another file with --file")
    return path.read_bytes().decode()  # its line ends stay as they are


def _write(path: Path, content: str) -> None:
    """Replace the file in one step, so that a crash leaves the secrets that it had."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8", newline="") as opened:
            opened.write(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _git_notes(path: Path) -> list[str]:
    """Let git ignore the file, and return what was done or what to do."""
    folder = path.resolve().parent
    if not any((each / ".git").exists() for each in (folder, *folder.parents)):
        return [f"It is in no git repository. If that changes, add the line /{path.name} to .gitignore"]
    if _git(folder, "ls-files", "--error-unmatch", "--", path.name):
        return [f"git tracks it: run `git rm --cached {path.name}`, and replace the secrets that were committed"]
    if _git(folder, "check-ignore", "--quiet", "--", path.name):
        return ["git ignores it"]
    ignore, line = folder / ".gitignore", f"/{path.name}"
    try:
        content = ignore.read_text(encoding="utf-8") if ignore.exists() else ""
        if line not in content.split():
            with ignore.open("a", encoding="utf-8") as opened:
                opened.write(f"{'' if not content or content.endswith(chr(10)) else chr(10)}{line}\n")
    except (OSError, UnicodeDecodeError):
        return [f"Add the line {line} to .gitignore, which cannot be written: git would add the secrets"]
    return [f"{line} added to .gitignore"]


def _git(folder: Path, *arguments: str) -> bool:
    """Whether a git command succeeds. False also if git is not installed."""
    git = shutil.which("git")
    if git is None:
        return False
    done = subprocess.run(  # noqa: S603 - a fixed command; the name of the file comes after `--`
        [git, "-C", str(folder), *arguments], capture_output=True, check=False, timeout=30
    )
    return done.returncode == 0
