"""Where a database may lie, and how its address is written."""

from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import ConfigError, StoreError
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings, Storage
from pagoda.core.storage.address import address_of
from pagoda.core.storage.place import is_network, mount_of
from pagoda.core.storage.store import open_store


def settings(home: Path, url: str = "") -> Settings:
    return Settings(home=home, storage=Storage(url=Secret(url)))


def test_default_is_sqlite_in_home(tmp_path: Path) -> None:
    address = address_of(settings(tmp_path))
    assert address.path == tmp_path / "pagoda.db"
    assert address.url.drivername == "sqlite+aiosqlite"
    assert str(address) == str(tmp_path / "pagoda.db")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgres+asyncpg", "postgresql+asyncpg"])
def test_every_spelling_of_postgresql_is_accepted(tmp_path: Path, scheme: str) -> None:
    address = address_of(settings(tmp_path, f"{scheme}://ann:pa%20ss@db.example:6432/pagoda?sslmode=require"))
    assert address.url.drivername == "postgresql+asyncpg"
    assert address.url.password == "pa ss"
    assert dict(address.url.query) == {"ssl": "require"}
    assert str(address) == "postgresql://ann:***@db.example:6432/pagoda"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:hunter2@db/pagoda",
        "hunter2",
        "postgresql://ann:hunter2@db:nonsense/pagoda",
        "postgresql://ann:hunter2@db",
        "postgresql://ann:hunter2@db/pagoda?passfile=hunter2",
        "postgresql://ann:hunter2@db/pagoda?sslmode=maybe",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file.db?mode=hunter2",
    ],
)
def test_other_addresses_are_refused_without_showing_them(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address_of(settings(tmp_path, url))
    shown = str(caught.value)
    assert "storage.url" in shown
    assert "hunter2" not in shown
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.rclone", "CIFS", "lustre"])
def test_network_file_systems_are_known(kind: str) -> None:
    assert is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "apfs", "tmpfs", "overlay", "fuse.ntfs-3g", "fuseblk"])
def test_local_file_systems_are_allowed(kind: str) -> None:
    assert not is_network(kind)


parts = st.lists(st.sampled_from(["a", "b", "ab", "data", "database"]), max_size=4)
paths = parts.map(lambda names: "/" + "/".join(names))


@given(path=paths, mounts=st.lists(st.tuples(paths, st.sampled_from(["ext4", "nfs"])), max_size=8))
def test_the_mount_of_a_path_is_its_longest_ancestor(path: str, mounts: list[tuple[str, str]]) -> None:
    lineage = [PurePosixPath(path), *PurePosixPath(path).parents]
    above = [(point, kind) for point, kind in mounts if PurePosixPath(point) in lineage]
    found = mount_of(PurePosixPath(path), mounts)
    if not above:
        assert found is None
        return
    nearest = max(len(PurePosixPath(point).parts) for point, _ in above)
    # The last of equals wins: a mount hides an earlier one on the same point.
    assert found == [entry for entry in above if len(PurePosixPath(entry[0]).parts) == nearest][-1]


async def test_sqlite_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [SimpleNamespace(mountpoint="/", fstype="ext4"), SimpleNamespace(mountpoint=str(tmp_path), fstype="nfs4")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4 at .*PostgreSQL") as caught:
        await open_store(settings(tmp_path / "home")).open()
    assert caught.value.code == "store_place"
    assert not (tmp_path / "home").exists()
