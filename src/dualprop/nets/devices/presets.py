"""Devices that were measured or specified, with their published numbers.

All are as aihwkit (IBM, `aihwkit/simulator/presets/devices.py`, as of June 2026) has fitted or specified them.
"""

from __future__ import annotations

from dualprop.nets.devices.pulsed import PulsedDevice
from dualprop.nets.devices.responses import Exponential, Linear
from dualprop.registry import Registry

_GONG = "Gong et al., Nature Communications 2018"
_GOKMEN = "Gokmen, Vlasov, Frontiers in Neuroscience 2016"

PRESETS: Registry[PulsedDevice] = Registry(
    "device",
    {
        "ReRamES": PulsedDevice(
            0.00135,
            up_down=0.259359,
            dw_min_dtod=0.2,
            up_down_dtod=0.05,
            w_min_dtod=0.3,
            w_max_dtod=0.3,
            dw_min_std=5.0,
            write_noise_std=75.0,
            response=Exponential(a=-0.5, b=-0.5, A_up=-1.18445, A_down=-0.081404, gamma_up=5.0, gamma_down=5.0),
            source=f"aihwkit ReRamES, a fit of exponential steps to {_GONG}",
        ),
        "ReRamSB": PulsedDevice(
            0.002,
            w_min=-0.75,
            w_max=1.25,
            dw_min_dtod=0.3,
            up_down_dtod=0.01,
            w_min_dtod=0.3 / 0.75,
            w_max_dtod=0.3 / 1.25,
            dw_min_std=3.75,
            additive=True,
            write_noise_std=56.0,
            response=Linear(),
            source=f"aihwkit ReRamSB, a loose fit of soft bounds to {_GONG}",
        ),
        "Capacitor": PulsedDevice(
            0.005,
            dw_min_dtod=0.1,
            up_down_dtod=0.06,
            w_min_dtod=0.07,
            w_max_dtod=0.07,
            dw_min_std=0.3,
            additive=True,
            lifetime=1e6,
            response=Linear(0.05, 0.05, 0.01, 0.01, own_bounds=False),
            source="aihwkit Capacitor, a fit of linear steps to Li et al., VLSI 2018, of one lifetime",
        ),
        "EcRam": PulsedDevice(
            0.002,
            w_min=-0.8276,
            w_max=1.1724,
            dw_min_dtod=0.1,
            up_down_dtod=0.01,
            w_min_dtod=0.05,
            w_max_dtod=0.05,
            dw_min_std=0.3,
            response=Linear(0.1153, 0.5085, 0.05, 0.05, own_bounds=False, w_max=1.1724, w_min=-0.8276),
            source="aihwkit EcRam, a fit of linear steps to Tang et al., IEDM 2018",
        ),
        "EcRamMO": PulsedDevice(
            2.8214e-4,
            w_min=-0.8286,
            w_max=1.1714,
            dw_min_dtod=0.1,
            up_down_dtod=0.01,
            w_min_dtod=0.05,
            w_max_dtod=0.05,
            dw_min_std=2.0,
            response=Linear(0.4152, 0.7342, 0.05, 0.05, own_bounds=False, w_max=1.1714, w_min=-0.8286),
            source="aihwkit EcRamMO, a fit of linear steps to Kim et al., IEDM 2019",
        ),
        "Idealized": PulsedDevice(
            0.0002,
            dw_min_dtod=0.3,
            w_min_dtod=0.3,
            w_max_dtod=0.3,
            dw_min_std=0.3,
            source=f"aihwkit Idealized, constant steps after {_GOKMEN}, symmetric and of 10,000 states",
        ),
        "GokmenVlasov": PulsedDevice(
            0.0016,
            dw_min_dtod=0.3,
            up_down_dtod=0.01,
            w_min_dtod=0.3,
            w_max_dtod=0.3,
            dw_min_std=0.3,
            source=f"aihwkit GokmenVlasov, constant steps after {_GOKMEN}",
        ),
    },
)
"""Names of devices, with what is known of each."""
