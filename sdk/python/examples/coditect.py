"""CODITECT's integration. Run `license-client login` once, then this; the ten lines are between the marks."""

from license_client import LicenseClient, LicenseStatus, NoSeatsAvailable


def work() -> None:
    """What CODITECT does all day."""


# ---- ten lines ----
def tell(status: LicenseStatus) -> None:
    print(f"License {status}: {status.error or 'fine'}")


try:
    with LicenseClient(on_offline=tell, on_online=tell, on_lost=tell, exit_on_lost=True) as license:
        tell(license.status)
        work()
except NoSeatsAvailable as full:
    print(f"All {full.total} seats are in use.")
# ---- ten lines ----
