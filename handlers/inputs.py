"""Files that go in: the four ways to give one, read to bytes within a size.

A path is opened part by part, each relative to the descriptor of the folder before it, and no part may be a symbolic
link: the same as openat2(2) with ``RESOLVE_BENEATH`` and ``RESOLVE_NO_SYMLINKS``, without needing it. The sandbox shows
nothing of the host but the operator's folder in any case; this holds where it shares the host's paths too.
"""

from __future__ import annotations

import binascii
import errno
import os
import stat

from handlers.failures import Refusal
from handlers.parameters.files import InputFile
from handlers.parameters.patterns import INPUTS_FOLDER, UPLOADS_FOLDER

_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for its other end; O_NOCTTY: no input becomes our terminal
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BASE64_SPACE = b" \t\r\n"
_MIB = 1 << 20


def read(file: InputFile, *, max_bytes: int) -> bytes:
    """The content of a file.

    Raises:
        Refusal: it is not there, no regular file, too large, or not base64.
        OSError: it is there and cannot be read.
    """
    if file.text is not None:
        return _capped(file.text.encode(), max_bytes)
    if file.base64 is not None:
        return from_base64(file.base64, max_bytes=max_bytes)
    if file.file_id is not None:
        return _read_below(UPLOADS_FOLDER, [file.file_id], f"the uploaded file {file.file_id}", max_bytes)
    path = str(file.path).removeprefix(INPUTS_FOLDER + "/")
    return _read_below(inputs_folder(), path.split("/"), f"{path!r} below FILES_DIR", max_bytes)


def inputs_folder() -> str:
    """Where the operator's files are: ``/inputs``, or ``INPUTS_DIR`` where a run shares the host's paths."""
    return os.environ.get("INPUTS_DIR", INPUTS_FOLDER)


def from_base64(text: str, *, max_bytes: int) -> bytes:
    """Bytes of a base64 text, RFC 4648 section 4; white space is passed over.

    Raises:
        Refusal: it has other characters or its end is missing, or it is too large.
    """
    if len(text) > max_bytes * 2:  # with white space at every other place even; what follows copies it
        raise _too_large(max_bytes)
    try:
        raw = text.encode("ascii").translate(None, _BASE64_SPACE)
        return _capped(binascii.a2b_base64(raw, strict_mode=True), max_bytes)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise Refusal(
            "invalid_base64",
            f"The content is not base64 ({error}). Encode the file's bytes with the standard alphabet and padding; a "
            'file is named by `{"path": …}` or `{"file_id": …}`.',
        ) from None


def _read_below(root: str, parts: list[str], name: str, max_bytes: int) -> bytes:
    folder = _open_root(root)
    try:
        for part in parts[:-1]:
            inner = _open(part, _FOLDER_FLAGS, folder, name)
            os.close(folder)
            folder = inner
        fd = _open(parts[-1], _FILE_FLAGS, folder, name)
    finally:
        os.close(folder)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refusal("not_a_file", f"There is no regular file at {name}; name one.")
        if found.st_size > max_bytes:
            raise _too_large(max_bytes)
        with open(fd, "rb", closefd=False) as opened:
            return _capped(opened.read(max_bytes + 1), max_bytes)
    finally:
        os.close(fd)


def _open_root(root: str) -> int:
    try:
        return os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        if root == UPLOADS_FOLDER:
            raise Refusal("file_not_found", "No uploaded file was handed to this task; upload it again.") from None
        raise Refusal(
            "no_inputs_folder",
            "There is no folder of input files here: the operator has set no FILES_DIR, or the policy does not grant "
            'it. Send the content as `{"base64": …}`, or upload the file.',
        ) from None


def _open(part: str, flags: int, folder: int, name: str) -> int:
    try:
        return os.open(part, flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            raise Refusal("file_not_found", f"There is no file {name}; check the name.") from None
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise Refusal(
                "not_a_file", f"There is no regular file at {name}: a part of it is a link or no folder; links are "
                "not followed.",
            ) from None  # fmt: skip
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refusal(
                "file_not_readable",
                f"Runs may not read {name}; the operator makes it readable for all users, and its folders too.",
            ) from None
        raise


def _capped(content: bytes, max_bytes: int) -> bytes:
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("file_too_large", f"The file is larger than {max_bytes // _MIB} MiB; send a smaller one.")
