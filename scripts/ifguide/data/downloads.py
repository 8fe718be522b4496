"""Downloads of public files: whole and with the expected checksum, or not at all."""

import errno
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import atomic_path
from ifguide.files.checksums import file_sha256

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEMES = ("https", "http", "file")
# Statuses after which the same request can succeed later.
_TEMPORARY_STATUSES = (408, 425, 429, 500, 502, 503, 504)
# Trouble of this machine, which trying again does not mend.
_LOCAL_ERRORS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def download(
    url: str,
    path: str | Path,
    sha256: str | None,
    attempts: int = 3,
    *,
    pause_seconds: float = 2.0,
) -> None:
    """Fetch `url` to `path` and check its SHA-256; take a right file that is there already.

    Where `sha256` is None, nobody has published one, and any file that is there is taken.

    After an error of the network it tries again, `attempts` times in all, waiting `pause_seconds`
    and each time twice as long as before. Nothing appears at `path` before its checksum is right.

    Raises InputError for an address that is not http, https or file, where it cannot be fetched,
    and for a wrong checksum, of the download or of a file that is there: that is not overwritten.
    """
    path, sha256 = Path(path), sha256 and sha256.lower()
    if url.partition(":")[0].lower() not in _SCHEMES:
        raise InputError(f"{url}: not an http, https or file address; correct `url`")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise InputError(f"{url}: sha256 {sha256!r} is not 64 hexadecimal digits; correct `sha256`")
    if path.exists():
        if not path.is_file():
            raise InputError(f"{path}: not a file; move it away, or change `path`")
        if sha256 is not None and (found := file_sha256(path)) != sha256:
            raise InputError(
                f"{path}: has SHA-256 {found}, not the expected {sha256}; move it away to fetch "
                f"{url} again, or correct `sha256` if you mean to use this file"
            )
        return
    for attempt in range(1, attempts + 1):
        try:
            _fetch(url, path, sha256)
            return
        except InputError:
            raise
        # urllib reports an address that it cannot parse as a ValueError.
        except (OSError, http.client.HTTPException, ValueError) as error:
            if attempt == attempts or not _is_temporary(error):
                raise InputError(
                    f"{url}: cannot be fetched ({error}); place the file by hand at {path}, or "
                    "set data_dir to a folder that has it"
                ) from error
            pause = pause_seconds * 2 ** (attempt - 1)
            log.warning("%s: %s; trying again in %.0f seconds", url, error, pause)
            time.sleep(pause)


def _is_temporary(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _TEMPORARY_STATUSES
    if isinstance(error, ValueError | http.client.InvalidURL):
        return False
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(cause, "errno", None) not in _LOCAL_ERRORS


def _fetch(url: str, path: Path, sha256: str | None) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "ifguide"})
    with (
        urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response,
        # What was fetched is recorded in the results, not in the user's own folder.
        atomic_path(path, publish=os.replace) as temporary,
    ):
        with open(temporary, "wb") as content:
            shutil.copyfileobj(response, content, 2**20)
        # Reading in pieces does not tell a connection that broke from the end of the file.
        received, announced = temporary.stat().st_size, response.headers.get("Content-Length")
        if announced is not None and received != int(announced):
            raise ConnectionError(f"connection ended after {received} of {announced} bytes")
        if sha256 is not None and (found := file_sha256(temporary)) != sha256:
            raise InputError(
                f"{url}: has SHA-256 {found}, not the expected {sha256}; nothing was written to "
                f"{path}: the file changed at its source, or `sha256` is wrong"
            )
