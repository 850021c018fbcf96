"""Guests `large:sender` and `large:receiver`: 64 KiB a frame, checksums and cutting left to the device (A2).

The sender's argument is the MAC address of the receiver. Who asks sees what the driver may leave to the device, and by
whom the rest is withheld: on the path `copy` it cuts large frames itself, and the receiver sees no difference.
"""

from __future__ import annotations

from partitions.guest import Guest
from partitions.guest_probe import ACK, TCP, probe_frame
from pyx import abi
from pyx.offload import NetHeader

FRAMES = 100
HEADERS = 54  # Ethernet, IPv4, TCP
PAYLOAD = bytes(65_000)
SEGMENT = 1448  # bytes of payload of each frame on a wire with an MTU of 1,500


def sender(guest: Guest) -> None:
    nic = guest.nic("eth0")
    peer = bytes.fromhex(guest.arguments[0].replace(":", ""))
    content = probe_frame(peer, nic.mac, 4, TCP, ACK, PAYLOAD)
    frame = nic.room(len(content))
    for _ in range(FRAMES):
        frame[abi.NET_HEADER :] = content  # the driver writes its header, and the sum of the pseudo header
        nic.send_large([frame], SEGMENT)
    guest.report(sent=FRAMES, dropped=nic.dropped, capabilities=sorted(
        name for name, told in nic.capabilities().items() if told["granted"] and told["proved"]))  # fmt: skip


def receiver(guest: Guest) -> None:
    nic = guest.nic("eth0")
    nic.open(buffers=32, frame_size=abi.FRAME_LARGE_MAX, headed=True)
    frames = payload = segment = 0
    while payload < FRAMES * len(PAYLOAD):
        frame = nic.receive(10.0)
        if frame is None:
            raise TimeoutError(f"{payload} bytes in {frames} frames, and no more")
        segment = NetHeader.load(frame).gso_size  # large as it was sent: how its sender wants it cut
        payload += len(frame) - abi.NET_HEADER - HEADERS
        frames += 1
        nic.release(frame)
    guest.report(frames=frames, payload=payload, segment=segment)
