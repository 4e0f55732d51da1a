"""The last step of every GGUF file: header, values and tensors to the disk."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import gguf


def write_out(writer: gguf.GGUFWriter) -> None:
    """Write what the writer was given. Raises ``OSError`` with the number of a full disk, and leaves no file open."""
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    except OSError as error:
        for file in writer.fout or ():
            with contextlib.suppress(OSError):  # what is still buffered does not fit either
                file.close()
        raise OSError(error.errno or errno.ENOSPC, str(error)) from error  # NumPy names a full disk without its number


def disk_fault(error: Exception, place: Path) -> OSError:
    """What safetensors could not write, as the system's error: it tells a full disk in words alone."""
    number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
    return OSError(number, os.strerror(number), str(place))
