"""A line between two network namespaces that delays every packet and loses some: a tun device in each, and this between.

Says "ready" when the devices, both named "line", are there. Needs root and /dev/net/tun.
"""

import argparse
import collections
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000


def end(namespace, name):
    """A tun device in the namespace; its packets go through the descriptor."""
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    except OSError as error:
        sys.exit(f"line.py: no tun device ({error}): the kernel needs CONFIG_TUN, and this root")
    subprocess.run(["ip", "link", "set", name, "netns", namespace], check=True)
    subprocess.run(["ip", "-n", namespace, "link", "set", name, "name", "line"], check=True)
    return device


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ends", nargs=2, required=True)
    parser.add_argument("--delay-ms", type=float, required=True)
    parser.add_argument("--loss-percent", type=float, required=True)
    arguments = parser.parse_args()
    devices = [end(namespace, f"chaos{os.getpid()}-{side}"[:15]) for side, namespace in enumerate(arguments.ends)]
    dice = random.Random(1)
    # What is on its way to each end, in the order of its arrival.
    ways = [collections.deque(), collections.deque()]
    print("ready", flush=True)
    while True:
        dues = [way[0][0] for way in ways if way]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select(devices, [], [], wait)
        now = time.monotonic()
        for side, device in enumerate(devices):
            if device in readable:
                for _ in range(64):
                    try:
                        packet = os.read(device, 65536)
                    except (BlockingIOError, OSError):
                        break
                    if dice.random() * 100 >= arguments.loss_percent:
                        ways[1 - side].append((now + arguments.delay_ms / 1000, packet))
        for side, way in enumerate(ways):
            while way and way[0][0] <= now:
                try:
                    os.write(devices[side], way.popleft()[1])
                except OSError:
                    # The device is down: what comes for it is lost.
                    pass


main()
