"""fio's nbd engine, with verification."""
import json
import os

from lib import images
from lib.context import check, rows
from lib.images import MIB
from lib.served import Served

SIZE = 32 * MIB
JOBS = [
    ("4 KiB random writes", ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
    ("mixed sizes, unaligned", ["--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1", "--iodepth=16"]),
    ("sequential megabytes", ["--rw=write", "--bs=1m", "--iodepth=4"]),
    ("a flush now and then", ["--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=32"]),
    ("trims among the writes", ["--rw=randtrimwrite", "--bs=64k", "--iodepth=8"]),
    ("one at a time", ["--rw=randwrite", "--bs=8k", "--iodepth=1", "--io_size=8m"]),
]


def run_fio(t, uri, *words, size=SIZE):
    result = t.run("fio", "--name=test", "--ioengine=nbd", f"--uri={uri}", f"--size={size}", "--randrepeat=1",
                   "--output-format=json", "--thread=0", *words, seconds=120, cwd=t.path())
    job = json.loads(result.out[result.out.index("{"):])["jobs"][0]
    check(job["error"] == 0, f"fio: error {job['error']}: {result.err}")
    return job


@rows([(f"{name}, {place}", words, place) for name, words in JOBS for place in ("tmpfs", "disk")])
def test_verify(t, row):
    """Issue 2 item 10: fio writes with crc32c in every block and reads all back; the images are equal."""
    _, words, place = row
    served = Served(t, size=SIZE, place=place)
    verify = [] if "--rw=randtrimwrite" in words else ["--verify=crc32c", "--do_verify=1", "--verify_fatal=1"]
    job = run_fio(t, served.uri, *words, *verify)
    check(job["write"]["total_ios"] > 0, "fio wrote nothing")
    served.stop_and_compare()


def test_verify_after_a_crash(t):
    """B6, rule 12: blocks that fio wrote verify after SIGKILL and recovery."""
    served = Served(t, size=SIZE)
    words = ["--rw=randwrite", "--bs=4k", "--iodepth=32", "--verify=crc32c"]
    run_fio(t, served.uri, *words, "--do_verify=0")
    served.daemon.kill()
    served.daemon.start()
    served.daemon.wait_state("vol0", "ACTIVE")
    run_fio(t, served.uri, *words, "--verify_only=1")
    served.daemon.wait_synchronized("vol0")
    served.stop_and_compare()


def test_several_jobs(t):
    """Issue 2 item 6 (multi-conn): four jobs, each with its connection, each in its part of the volume."""
    served = Served(t, size=4 * SIZE)
    run_fio(t, served.uri, "--rw=randrw", "--bs=4k", "--iodepth=16", "--numjobs=4", "--offset_increment=25%",
            "--io_size=8m", "--verify=crc32c", "--verify_fatal=1", "--group_reporting", size=SIZE)
    served.stop_and_compare()
    check(all(os.path.getsize(path) == 4 * SIZE for path in served.paths), "the files' size")
    check(images.digest(served.paths[0]) != images.digest(images.make_sparse(t.shm("zero"), 4 * SIZE)),
          "nothing was written")
