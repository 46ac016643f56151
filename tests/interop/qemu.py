"""QEMU's programs: qemu-io, qemu-img."""
import os
import re

from lib import images
from lib.context import check, rows
from lib.images import KIB, MIB
from lib.served import SIZE, Served


def qemu_io(t, uri, *commands, options=(), status=0):
    words = [word for command in commands for word in ("-c", command)]
    result = t.run("qemu-io", "-f", "raw", *options, *words, uri, status=status)
    check("Pattern verification failed" not in result.out + result.err, f"wrong data: {result}")
    return result


@rows([("cache writeback", ["-t", "writeback"]), ("cache none", ["-t", "none"]),
       ("cache writethrough, FUA on all", ["-t", "writethrough"])])
def test_patterns(t, row):
    """Issue 2 item 10: qemu-io writes and reads patterns: aligned, unaligned, single sectors and bytes, zeroes,
    discard."""
    served = Served(t)
    qemu_io(t, served.uri,
            "write -P 0x11 0 1M", "write -P 0x22 4k 4k", "write -P 0x33 4608 512", "write -P 0x44 100 1",
            "write -P 0x55 8191 2",
            "read -P 0x11 0 100", "read -P 0x44 100 1", "read -P 0x11 101 3995", "read -P 0x22 4k 512",
            "read -P 0x33 4608 512",
            "read -P 0x22 5k 3071", "read -P 0x55 8191 2", "read -P 0x11 8193 1040383",
            "write -z 64k 64k", "read -P 0 64k 64k", "read -P 0x11 63k 1k", "read -P 0x11 128k 1k",
            "write -z -u 200k 8k", "read -P 0 200k 8k",
            "write -z 300001 77", "read -P 0 300001 77", "read -P 0x11 300078 100", "read -P 0x11 299901 100",
            "write -f -P 0x66 2M 64k", "flush", "read -P 0x66 2M 64k",
            "discard 512k 256k", "write -P 0x77 640k 4k", "read -P 0x77 640k 4k",
            f"write -P 0x88 {SIZE - 512} 512", f"read -P 0x88 {SIZE - 512} 512",
            options=row[1])
    served.stop_and_compare()
    check(images.read_at(served.paths[1], SIZE - 512, 512) == b"\x88" * 512, "the last sector of the second image")


def test_large_requests(t):
    """Issue 2 item 6: payloads beyond one buffer go in pieces."""
    served = Served(t)
    qemu_io(t, served.uri, "write -P 0x9a 1 32M", "read -P 0x9a 1 32M", "read -P 0 0 1", "read -P 0 33554433 4095")
    served.stop_and_compare()


def test_many_at_once(t):
    """Issue 2 item 10: asynchronous requests of QEMU, overlapping reads and writes among them."""
    served = Served(t)
    commands = [f"aio_write -P {1 + number % 250} {number * 12345} 12345" for number in range(200)]
    commands += ["aio_flush"] + [f"aio_read -P {1 + number % 250} {number * 12345} 12345"
                                 for number in range(200)] + ["aio_flush"]
    result = qemu_io(t, served.uri, *commands)
    check(not re.search("failed|error", result.out + result.err, re.IGNORECASE), f"{result}")
    served.stop_and_compare()


def test_past_the_end(t):
    """Issue 2 item 6: QEMU is told that a request past the end fails, and works on."""
    served = Served(t, size=MIB)
    shown = qemu_io(t, served.uri, f"write -P 1 {MIB - 512} 1024", f"read {MIB} 512", f"write -P 2 {MIB - 512} 512",
                    f"read -P 2 {MIB - 512} 512", status=None)
    check("512/512" in shown.out, f"no request after the refused ones: {shown}")
    served.stop_and_compare()
    check(os.path.getsize(served.paths[0]) == MIB, "the file grew")


def test_convert_and_compare(t):
    """Issue 2 item 10: qemu-img convert to and from, qemu-img compare; qcow2 in the middle."""
    served = Served(t)
    source = images.make_random(t.shm("source"), SIZE, seed=5)
    t.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, served.uri)
    t.run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, served.uri)
    t.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", served.uri, t.shm("copy.qcow2"))
    t.run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", t.shm("copy.qcow2"), served.uri)
    t.run("qemu-img", "convert", "-m", "8", "-W", "-n", "-f", "qcow2", "-O", "raw", t.shm("copy.qcow2"), served.uri)
    served.stop_and_compare()
    t.run("qemu-img", "compare", "-f", "raw", "-F", "raw", source, served.paths[0])
    t.run("qemu-img", "compare", "-f", "raw", "-F", "raw", served.paths[0], served.paths[1])


def test_a_qcow2_inside(t):
    """Issue 2 item 10: a qcow2 image on the volume, as a virtual machine would use it; qemu-img check finds no
    error."""
    served = Served(t)
    t.run("qemu-img", "create", "-f", "qcow2", served.uri, "32M")
    t.run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", "-c", "write -z 1M 1M", "-c", "discard 2M 1M", served.uri)
    t.run("qemu-img", "check", "-f", "qcow2", served.uri)
    served.daemon.kill()
    served.daemon.start()
    served.daemon.wait_synchronized("vol0")
    t.run("qemu-img", "check", "-f", "qcow2", served.uri)
    t.run("qemu-io", "-f", "qcow2", "-c", "read -P 7 0 1M", "-c", "read -P 0 1M 1M", served.uri)
    served.stop_and_compare()


def test_bench_of_qemu(t):
    """Issue 2 item 6: qemu-img bench keeps 64 requests in flight, with a flush between some."""
    served = Served(t)
    for words in (["-w", "--flush-interval=64", "-S", "20480"], ["-w", "-s", "65536"], ["-S", "20480"]):
        t.run("qemu-img", "bench", "-f", "raw", "-c", "4000", "-d", "64", *words, served.uri)
    served.stop_and_compare()


def test_unaligned_ends_keep_their_neighbours(t):
    """Issue 2 item 3: read-modify-write touches no byte beside the request."""
    served = Served(t, size=MIB)
    commands = ["write -P 0xff 0 1M"]
    expected = bytearray(b"\xff" * MIB)
    for number in range(60):
        offset, length = number * 5003 + number % 7, 1 + number * 61 % 3000
        commands.append(f"write -P {number} {offset} {length}")
        expected[offset:offset + length] = bytes([number]) * length
    qemu_io(t, served.uri, *commands)
    served.stop_and_compare()
    found = images.read_at(served.paths[0], 0, MIB)
    check(found == bytes(expected), f"byte {images.first_difference(found, expected, 0)} is wrong")
    check(len(found) == 1024 * KIB, "the size")
