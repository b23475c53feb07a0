"""The fingerprint on made-up machines: what moves and what does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from license_client import ConfigurationError, fingerprint, hardware_parts

Machine = Callable[..., Path]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def card(root: Path, name: str, mac: str, device: str | None = "pci0000:00/0000:00:1f.6", assigned: str = "0") -> None:
    where = root / "sys/devices" / (device or "virtual") / "net" / name
    write(where / "address", mac)
    write(where / "addr_assign_type", assigned)
    if device:
        (where / "device").symlink_to(root / "sys/devices" / device)
    link = root / "sys/class/net" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(where)


def disk(root: Path, name: str, serial: str) -> None:
    write(root / "sys/block" / name / "device/serial", serial)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A laptop with one card, one disk and a machine id, seen by `fingerprint`."""
    root = tmp_path / "laptop"
    write(root / "etc/machine-id", "0123456789abcdef0123456789abcdef")
    write(
        root / "proc/cpuinfo", "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 142\nmodel name : i7\nstepping : 10"
    )
    card(root, "eth0", "3c:52:82:11:22:33")
    disk(root, "nvme0n1", "S4EWNX0N123456")
    (root / "sys/block/loop0").mkdir(parents=True)
    look_at(monkeypatch, root)
    return root


def look_at(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(hardware_parts, "parts", lambda: hardware_parts.linux_parts(str(root)))


def test_one_id_without_anything_raw(laptop: Path, home: Path) -> None:
    found = fingerprint(home)
    assert re.fullmatch(r"[0-9a-f]{64}", found)
    path = home / "hardware_id"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert text.splitlines()[0] == found
    for raw in ("0123456789abcdef", "3c:52:82", "S4EWNX0N", "i7", "GenuineIntel"):
        assert raw not in text


def test_the_same_without_the_cache(laptop: Path, home: Path, tmp_path: Path) -> None:
    assert fingerprint(home) == fingerprint(tmp_path / "elsewhere")


def test_docks_vpn_bridges_and_random_addresses_change_nothing(laptop: Path, home: Path, tmp_path: Path) -> None:
    before = fingerprint(home)
    card(laptop, "enx001", "00:e0:4c:00:00:01", device="pci0000:00/usb3/3-1/3-1:1.0")
    card(laptop, "tun0", "5e:00:00:00:00:01", device=None)
    card(laptop, "docker0", "02:42:ac:11:00:01", device=None)
    card(laptop, "wlan0", "da:a1:19:00:00:01", device="pci0000:00/0000:00:14.3", assigned="3")
    assert fingerprint(home) == fingerprint(tmp_path / "elsewhere") == before


def test_a_new_card_or_disk_leaves_the_machine_what_it_is(laptop: Path, home: Path) -> None:
    before = fingerprint(home)
    write(laptop / "sys/class/net/eth0/address", "3c:52:82:99:99:99")
    assert fingerprint(home) == before
    write(laptop / "sys/class/net/eth0/address", "3c:52:82:11:22:33")
    disk(laptop, "nvme0n1", "another")
    assert fingerprint(home) == before


def test_a_cloned_machine_is_another(laptop: Path, home: Path) -> None:
    before = fingerprint(home)
    write(laptop / "sys/class/net/eth0/address", "52:54:00:99:99:99")
    disk(laptop, "nvme0n1", "clone")
    after = fingerprint(home)
    assert after != before
    assert fingerprint(home) == after


def test_a_home_that_moved_to_another_machine(laptop: Path, home: Path) -> None:
    before = fingerprint(home)
    write(laptop / "etc/machine-id", "f" * 32)
    write(laptop / "sys/class/net/eth0/address", "3c:52:82:99:99:99")
    assert fingerprint(home) != before


def test_wsl_makes_its_card_up(laptop: Path, home: Path) -> None:
    write(laptop / "proc/sys/kernel/osrelease", "5.15.90.1-microsoft-standard-WSL2")
    before = fingerprint(home)
    write(laptop / "sys/class/net/eth0/address", "00:15:5d:99:99:99")
    assert fingerprint(home) == before


def test_disk_by_udev_name(tmp_path: Path) -> None:
    (tmp_path / "sys/block/sda").mkdir(parents=True)
    link = tmp_path / "dev/disk/by-id/ata-Samsung_SSD_S3Z8"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../sda")
    assert hardware_parts.linux_parts(str(tmp_path)) == {"disk": ["ata-Samsung_SSD_S3Z8"]}


CONTAINER = "e" * 64


def container(root: Path, number: str) -> Path:
    write(root / ".dockerenv", "")
    write(root / "etc/hostname", f"host{number}")
    name = number * 64
    write(root / "proc/self/mountinfo", f"500 1 254:1 /var/lib/docker/containers/{name}/hostname /etc/hostname rw")
    return root


def test_containers_have_an_instance_each(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = container(tmp_path / "1", "1"), container(tmp_path / "2", "2")
    assert hardware_parts.in_container(str(one)) and not hardware_parts.in_container(str(tmp_path / "3"))
    monkeypatch.setattr(hardware_parts, "parts", lambda: hardware_parts.container_parts(str(one)))
    first = fingerprint(home)
    assert fingerprint(tmp_path / "fresh-1") == first, "its restart is the same"
    monkeypatch.setattr(hardware_parts, "parts", lambda: hardware_parts.container_parts(str(two)))
    assert fingerprint(tmp_path / "fresh-2") != first
    assert fingerprint(home) == first, "a home on a volume carries the id to the next container"


def test_no_source_at_all(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware_parts, "parts", dict)
    first = fingerprint(home)
    assert fingerprint(home) == first
    assert fingerprint(tmp_path / "elsewhere") != first


def test_override(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fingerprint(home, override="ci-runner.7") == "ci-runner.7"
    assert not home.exists()
    for bad in ("short", "a" * 129, "with space", "slash/slash"):
        with pytest.raises(ConfigurationError):
            fingerprint(home, override=bad)


def test_an_id_put_there_by_an_administrator(laptop: Path, home: Path) -> None:
    write(home / "hardware_id", "asset-000123")
    assert fingerprint(home) == "asset-000123"


def test_a_broken_cache_is_replaced(laptop: Path, home: Path) -> None:
    before = fingerprint(home)
    for text in ("", "\0\0", before + "\n{broken", "no\n{}"):
        (home / "hardware_id").write_text(text)
        assert fingerprint(home) == before


def test_this_machine(home: Path) -> None:
    assert fingerprint(home) == fingerprint(home)


def test_the_extra_fills_the_gap(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    assert hardware_parts.extra_parts() == {}
    module = types.ModuleType("machineid")
    module.id = lambda: "an-id"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machineid", module)
    assert hardware_parts.extra_parts() == {"machine_id": ["an-id"]}


def test_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "/usr/sbin/ioreg": '"IOPlatformUUID" = "U-1"\n"IOPlatformSerialNumber" = "C02"',
        "/sbin/ifconfig": "en0: flags\n  ether ac:de:48:00:11:22\n",
        "/usr/sbin/sysctl": "Apple M1\n",
    }
    monkeypatch.setattr(hardware_parts, "_output", lambda *command: said[command[0]])
    assert hardware_parts.mac_parts() == {
        "machine_id": ["U-1"],
        "disk": ["C02"],
        "mac": ["ac:de:48:00:11:22"],
        "cpu": ["Apple M1"],
    }
    monkeypatch.undo()
    assert hardware_parts._output("/nonexistent/command") == ""
