"""Which models a fleet serves."""

from __future__ import annotations

from batchfleet.status.model import FleetStatus
from batchfleet.status.read import read_status
from wire.address import RedisAddress
from wire.connection import connect
from wire.keys import Keys
from wire.redis_errors import translated


def fleet_status(address: RedisAddress) -> FleetStatus:
    """The state of the fleet, over a connection for this once."""
    with translated(address), connect(address) as client:
        return read_status(client, Keys(address.namespace))


def served_models(address: RedisAddress) -> list[str]:
    """Names of the models that workers serve, or for which workers are started once there is work; sorted."""
    return sorted(fleet_status(address).served_models)
