"""A network that really fails: every process of the fleet has a network namespace of its own.

A cable leads from there to a switch, at which Redis is. A partition takes the process' end off the switch. Packets are
lost from then on, and nobody is told: no reset, no refused connection, no carrier that goes away. The kernels at both
ends send again and give up as they would between two machines.

Nothing here has a name outside of this process. The namespaces last as long as a file descriptor or a process of the
fleet, so that a driver that is killed leaves nothing behind, and fleets that run at the same time may all use the same
addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

CLONE_NEWNET = 0x40000000
PREFIX = "10.77.0."
REDIS_ADDRESS = f"{PREFIX}1"
PORT = 6379
NOBODYS_MAC = "02:00:00:00:00:00"
SWITCH_MAC = "02:00:00:00:02:00"
_NEIGHBOUR = f"neighbour replace {REDIS_ADDRESS} lladdr {SWITCH_MAC} dev eth0 nud permanent"
LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Move this thread, and all processes that it forks, into a network namespace."""
    opened = os.open(namespace, os.O_RDONLY)
    try:
        _checked(LIBC.setns(opened, CLONE_NEWNET))
    finally:
        os.close(opened)


@functools.cache
def why_no_namespaces() -> str:
    """Why this machine has no such network for us; empty if it has. Found out by making one."""
    if missing := [name for name in ("ip", "nsenter") if shutil.which(name) is None]:
        return f"no {' and no '.join(missing)} here"
    try:
        with Namespaces(Path(), ("one",)) as network:
            network.hold("one")
            network.hold_replies("one")
            network.release("one")
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error).strip()
    return ""


class Namespaces:
    """The hosts of a fleet, and the switch between them. A `Network`."""

    kind = "namespaces"

    def __init__(self, socket: Path, names: Sequence[str]) -> None:
        self._socket = socket
        self._number = {name: number for number, name in enumerate(names, 2)}
        self._held: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self._lay_cables()
        except BaseException:
            self._let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()

    def url(self, _name: str) -> str:
        return f"redis://{REDIS_ADDRESS}:{PORT}/0"

    def place(self, name: str) -> str:
        return f"/proc/{os.getpid()}/fd/{self._held[name]}"

    def around_redis(self, command: Sequence[str]) -> list[str]:
        listening = ["--bind", REDIS_ADDRESS, "--port", str(PORT), "--protected-mode", "no"]
        return [*_inside(self.place("")), *command, *listening]

    def hold(self, name: str) -> None:
        self._switch(f"link set {self._port(name)} nomaster")

    def hold_replies(self, name: str) -> None:
        # What Redis sends goes to a card that nobody has.
        self._switch(self._neighbour(name, NOBODYS_MAC))

    def release(self, name: str) -> None:
        self._switch(f"link set {self._port(name)} master switch", self._neighbour(name, _mac(self._number[name])))

    def reset(self, name: str) -> None:
        # While nothing arrives yet: what is on its way will meet a connection that is gone. If Redis does not answer
        # now, it arrives late.
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis(unix_socket_path=str(self._socket), socket_timeout=1, protocol=2) as client,
        ):
            for connection in client.client_list():
                if connection["addr"].rpartition(":")[0] == self.address(name):
                    client.client_kill_filter(_id=connection["id"])
        self.release(name)

    def unplug(self, name: str) -> None:
        """Take the cable out of that host, which notices: its card is down."""
        _ip(self.place(name), "link set eth0 down")

    def plug(self, name: str) -> None:
        """Put the cable back in."""
        _ip(self.place(name), "link set eth0 up", _NEIGHBOUR)

    def _lay_cables(self) -> None:
        self._held = {name: _new_namespace() for name in ("", *self._number)}
        switch = ["link set lo up", f"link add switch address {SWITCH_MAC} type bridge"]
        switch += [f"address add {REDIS_ADDRESS}/24 dev switch", "link set switch up"]
        for name, number in self._number.items():
            port = self._port(name)
            switch += [
                f"link add {port} type veth peer name eth0 address {_mac(number)} netns {self.place(name)}",
                f"link set {port} master switch up",
                self._neighbour(name, _mac(number)),
            ]
        self._switch(*switch)
        for name in self._number:
            host = ["link set lo up", f"address add {self.address(name)}/24 dev eth0", "link set eth0 up"]
            # Asked for who has the address, a port that is off the switch would say that it has, as it belongs to the
            # same kernel.
            _ip(self.place(name), *host, _NEIGHBOUR)

    def _let_go(self) -> None:
        for held in self._held.values():
            os.close(held)
        self._held.clear()

    def _switch(self, *commands: str) -> None:
        _ip(self.place(""), *commands)

    def _port(self, name: str) -> str:
        return f"port{self._number[name]}"

    def address(self, name: str) -> str:
        """Of the host of that name."""
        return f"{PREFIX}{self._number[name]}"

    def _neighbour(self, name: str, mac: str) -> str:
        return f"neighbour replace {self.address(name)} lladdr {mac} dev switch nud permanent"


def _mac(number: int) -> str:
    return f"02:00:00:00:01:{number:02x}"


def _inside(namespace: str) -> list[str]:
    return ["nsenter", f"--net={namespace}", "--"]


def _ip(namespace: str, *commands: str) -> None:
    command = [*_inside(namespace), "ip", "-batch", "-"]
    subprocess.run(command, input="\n".join(commands), check=True, capture_output=True, text=True)  # noqa: S603 (ours)


def _new_namespace() -> int:
    """A file descriptor of a new network namespace, which lasts as long as it, or as whoever lives there."""
    made: list[int] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            _checked(LIBC.unshare(CLONE_NEWNET))
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        except OSError as error:
            failed.append(error)

    # A thread of its own, as only the thread that asks for it moves there.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
