"""Which file system a path lies on, and the refusal of network ones for SQLite.

SQLite's write-ahead log is shared memory between processes of one machine: over a network file system two hosts
corrupt the file without either noticing, so this is refused instead of documented.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

import psutil

from pagoda.core.errors import StoreError

# fmt: off
NETWORK = frozenset((
    "9p", "afpfs", "afs", "beegfs", "ceph", "cephfs", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb", "smb2", "smb3", "smbfs", "webdav",
))
_FUSE_NETWORK = (
    "alluxio", "blobfuse", "ceph", "curlftpfs", "davfs", "gcsfuse", "glusterfs", "goofys", "juicefs", "moosefs",
    "mountpoint-s3", "rclone", "s3fs", "s3ql", "seaweedfs", "smbnetfs", "sshfs",
)
# fmt: on


def is_network(kind: str) -> bool:
    """Whether a file system of this type (as the mount table spells it) is served by another machine."""
    kind = kind.lower()
    if kind in NETWORK:
        return True
    prefix, _, name = kind.partition(".")
    return prefix == "fuse" and name.startswith(_FUSE_NETWORK)


def mount_of(path: PurePath, mounts: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The (mount point, type) among ``mounts`` that holds the absolute ``path``: the longest, the last of equals."""
    best: tuple[str, str] | None = None
    depth = -1
    for point, kind in mounts:
        parts = PurePath(point).parts
        if path.parts[: len(parts)] == parts and len(parts) >= depth:
            best, depth = (point, kind), len(parts)
    return best


def refuse_network_place(path: Path) -> None:
    """Raise ``StoreError`` when ``path`` (which need not exist) lies on a network file system."""
    mounts = [(entry.mountpoint, entry.fstype) for entry in psutil.disk_partitions(all=True)]
    found = mount_of(path.resolve(), mounts)
    if found is not None and is_network(found[1]):
        raise StoreError(
            f"{path} lies on a network file system ({found[1]} at {found[0]}), which corrupts SQLite: set "
            "PAGODA_HOME to a local directory, or storage.url to a PostgreSQL database.",
            code="store_place",
        )
