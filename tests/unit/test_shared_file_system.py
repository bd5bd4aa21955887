"""Which folders are no place for a SQLite file, as the kernel's table of mounts tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.ownership import shared_file_system

MOUNTS = r"""
22 1 0:21 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /srv/far rw,relatime shared:5 - nfs4 10.0.0.1:/export rw,vers=4.2
31 30 0:41 / /srv/far/near rw,relatime - xfs /dev/sdb1 rw
32 22 0:42 / /srv/a\040share rw - cifs //host/share rw
33 22 0:43 / /srv/ssh rw - fuse.sshfs host:/ rw
34 22 0:44 / /srv/fuse rw - fuse.mergerfs a:b rw
""".strip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/reprise/reprise.db", None),
        ("/srv/far/reprise.db", "nfs4"),
        ("/srv/far/near/reprise.db", None),
        ("/srv/farther/reprise.db", None),
        ("/srv/a share/x/reprise.db", "cifs"),
        ("/srv/ssh/reprise.db", "fuse.sshfs"),
        ("/srv/fuse/reprise.db", None),
    ],
)
def test_the_nearest_mount_decides(tmp_path: Path, path: str, kind: str | None) -> None:
    """Fault 47: a file system without working locks is named, as far as it can be known."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert shared_file_system(Path(path), mounts) == kind


def test_where_nobody_says_what_is_mounted_nothing_is_claimed(tmp_path: Path) -> None:
    assert shared_file_system(tmp_path, tmp_path / "none") is None
