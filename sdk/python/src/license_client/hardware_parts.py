"""Where the parts of a fingerprint come from on each system. Reads files and the registry; never fails.

Left out on purpose: addresses of USB and virtual network cards (docks, VPN, bridges), randomised Wi-Fi
addresses, host names, IP addresses, user names, sizes of memory or disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_CONTAINER_ID = re.compile(r"(?:docker|containers|libpod|cri-containerd|crio)[/-](?:[^\s/]*/)*?([0-9a-f]{64})")
_CONTAINER_CGROUP = re.compile(r"docker|kubepods|containerd|libpod|lxc")
_COMMAND_TIMEOUT_SECONDS = 3.0

Parts = dict[str, list[str]]


def parts() -> Parts:
    """Name -> raw values of each source that this machine has. Stays in this process."""
    if sys.platform == "linux":
        if in_container():
            return container_parts()
        found = linux_parts()
    elif sys.platform == "darwin":
        found = mac_parts()
    elif sys.platform == "win32":
        found = windows_parts()
    else:
        found = {}
    return found if "machine_id" in found else {**found, **extra_parts()}


def extra_parts() -> Parts:
    """The machine id by `py-machineid` (extra `machineid`), for systems that we know no way on."""
    try:
        import machineid

        return {"machine_id": [machineid.id()]}
    except Exception:  # not installed, or it knows no way either
        return {}


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip().strip("\0")
    except OSError:
        return ""


def in_container(root: str = "/") -> bool:
    """Docker, Podman, Kubernetes, LXC, systemd-nspawn and dev containers."""
    base = Path(root)
    if (base / ".dockerenv").exists() or (base / "run/.containerenv").exists():
        return True
    if os.environ.get("container") or os.environ.get("KUBERNETES_SERVICE_HOST"):  # noqa: SIM112
        return True
    return bool(_CONTAINER_CGROUP.search(_read(base / "proc/1/cgroup")))


def container_parts(root: str = "/") -> Parts:
    """The instance: the container's id, its host name (the pod's name in Kubernetes), the image's machine id.

    Together they differ between two containers of one image and stay for the life of the container. Where the
    home is a volume, the cached id lives as long as the volume.
    """
    base = Path(root)
    mounts = _read(base / "proc/self/mountinfo") + _read(base / "proc/self/cgroup")
    found = sorted(set(_CONTAINER_ID.findall(mounts)))
    instance = [*found[:1], _read(base / "etc/hostname"), _read(base / "etc/machine-id")]
    named = [value for value in instance if value]
    return {"container": ["|".join(named)]} if named else {}


def linux_parts(root: str = "/") -> Parts:
    base = Path(root)
    machine = _read(base / "etc/machine-id") or _read(base / "var/lib/dbus/machine-id")
    cpu = _read(base / "proc/cpuinfo")
    serial = re.search(r"^Serial\s*:\s*(\w+)", cpu, re.M)
    model = re.findall(r"^(?:vendor_id|cpu family|model|model name|stepping)\s*:\s*(.+)", cpu, re.M)[:5]
    result: Parts = {}
    if machine and machine != "uninitialized":
        result["machine_id"] = [machine]
    if serial or model:
        result["cpu"] = [serial.group(1) if serial else "|".join(model)]
    if "microsoft" not in _read(base / "proc/sys/kernel/osrelease").lower():  # WSL makes these up at each start
        result["mac"] = _linux_macs(base)
        result["disk"] = _linux_disks(base)
    return {name: values for name, values in result.items() if values}


def _linux_macs(base: Path) -> list[str]:
    """Permanent addresses of built-in cards: a device behind it, not on USB, given by its maker."""
    found = []
    for card in sorted((base / "sys/class/net").glob("*")):
        device = card / "device"
        if not device.exists() or "/usb" in str(device.resolve()):
            continue
        address = _read(card / "address").lower()
        if _read(card / "addr_assign_type") in ("0", "") and _real_address(address):
            found.append(address)
    return found


def _real_address(address: str) -> bool:
    return bool(re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", address)) and address != "00:00:00:00:00:00"


def _linux_disks(base: Path) -> list[str]:
    """The serial of the first fixed disk: sysfs, else the names that udev gives without any rights."""
    for disk in sorted((base / "sys/block").glob("*")):
        if re.match(r"(loop|ram|zram|dm-|md|sr|fd)", disk.name) or _read(disk / "removable") == "1":
            continue
        if "/usb" in str(disk.resolve()):
            continue
        serial = _read(disk / "device/serial") or _read(disk / "serial")
        if serial:
            return [serial]
        for link in sorted((base / "dev/disk/by-id").glob("*")):
            if link.resolve().name == disk.name and link.name.startswith(("ata-", "nvme-", "scsi-")):
                return [link.name]
    return []


def _output(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands
            command, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def mac_parts() -> Parts:
    """One look at the platform expert: the board's UUID and serial number; en0 is built in on every Mac."""
    board = _output("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
    uuid = re.search(r'"IOPlatformUUID" = "([^"]+)"', board)
    serial = re.search(r'"IOPlatformSerialNumber" = "([^"]+)"', board)
    address = re.search(r"ether ([0-9a-f:]{17})", _output("/sbin/ifconfig", "en0"))
    cpu = _output("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string").strip()
    result = {
        "machine_id": [uuid.group(1)] if uuid else [],
        "disk": [serial.group(1)] if serial else [],  # soldered: the board's serial stands for the disk's
        "mac": [address.group(1)] if address else [],
        "cpu": [cpu] if cpu else [],
    }
    return {name: values for name, values in result.items() if values}


def windows_parts() -> Parts:
    """The registry (no process started), and `vol`-free disk and board serials through CIM."""
    result: Parts = {}
    if sys.platform == "win32":
        import winreg

        places = (
            ("machine_id", r"SOFTWARE\Microsoft\Cryptography", "MachineGuid"),
            ("cpu", r"HARDWARE\DESCRIPTION\System\CentralProcessor\0", "ProcessorNameString"),
        )
        for name, key, value in places:
            try:
                with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as handle:
                    result[name] = [str(winreg.QueryValueEx(handle, value)[0])]
            except OSError:
                pass
        script = (
            "(Get-CimInstance Win32_DiskDrive | Where-Object InterfaceType -ne USB | Sort-Object Index |"
            " Select-Object -First 1).SerialNumber; '--';"
            " Get-NetAdapter -Physical | Where-Object PnPDeviceID -notlike 'USB*' | Sort-Object InterfaceIndex |"
            " ForEach-Object PermanentAddress"
        )
        disk, _, cards = _output("powershell", "-NoProfile", "-Command", script).partition("--")
        result["disk"] = [disk.strip()] if disk.strip() else []
        result["mac"] = sorted(cards.split())
    return {name: values for name, values in result.items() if values}
