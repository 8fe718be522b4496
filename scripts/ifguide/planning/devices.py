"""The devices that a plan reckons with, and what their speed and a job's start rest on."""

from dataclasses import replace
from pathlib import Path

from ifguide.errors import InputError
from ifguide.files.artifacts import read_json
from ifguide.models.devices import CALIBRATED, DEVICES, Device, described_device


def planned_devices(plan: dict) -> tuple[list[Device], float, list[str]]:
    """Return the devices of a plan, the seconds before a job's work, and what both rest on.

    plan: the config section of that name. Raises InputError where its calibration does not exist.
    """
    known = dict(DEVICES)
    for name, description in plan["own_devices"].items():
        known[name] = described_device(name, description)
    start_seconds, source = plan["start_seconds"], "config key plan.start_seconds"
    if plan["calibration"]:
        measured = _calibration(plan["calibration"])
        known[CALIBRATED] = described_device(CALIBRATED, measured)
        start_seconds, source = measured["start_seconds"], f"measured in {plan['calibration']}"
    devices = [
        replace(known[name], utilisation={**known[name].utilisation, **plan["utilisation"]})
        for name in plan["devices"]
    ]
    notes = [f"start of a job: {start_seconds:.3g} s ({source})"]
    for device in devices:
        shares = ", ".join(f"{kind} {share:g}" for kind, share in device.utilisation.items())
        peaks = ", ".join(f"{value:.3g} FLOP/s {name}" for name, value in device.peak.items())
        basis = "measured" if device.name == CALIBRATED else "assumed"
        notes.append(f"{device.name}: {peaks}; {basis} utilisation: {shares}")
    return devices, start_seconds, notes


def _calibration(path: str) -> dict:
    if not Path(path).is_file():
        raise InputError(
            f"config key plan.calibration: {path} does not exist; write it with python "
            f"scripts/measure_device.py --output {path}"
        )
    return read_json(path)
