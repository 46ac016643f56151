#!/usr/bin/python3
"""Writes files and fsyncs them: `file_load.py FOLDER SEED`, until it is killed or an error ends it.

A file's name tells its content (see expected()). Prints the name when fsync of file and folder returned: from then on the
file must be there, whole, whatever happens. At times it removes a file, and says so before and after. A process of its own,
because it may hang in the kernel with its file system."""
import hashlib
import os
import random
import sys

BYTES_MAX = 100_000


def expected(name):
    """The content of file NAME, `NUMBER-BYTES`."""
    length = int(name.split("-")[1])
    block = hashlib.sha256(name.encode()).digest()
    return (block * (length // len(block) + 1))[:length]


def main():
    folder, source = sys.argv[1], random.Random(int(sys.argv[2]))
    handle, number, names = os.open(folder, os.O_RDONLY), 0, []
    while True:
        number += 1
        name = f"{sys.argv[2]}.{number}-{source.randrange(1, BYTES_MAX)}"
        with open(os.path.join(folder, name), "xb", buffering=0) as file:
            content = memoryview(expected(name))
            while content:
                content = content[file.write(content[:source.randrange(1, 65536)]):]
            os.fsync(file.fileno())
        os.fsync(handle)
        print("there", name, flush=True)
        names.append(name)
        if len(names) > 100:
            name = names.pop(source.randrange(len(names)))
            print("leaving", name, flush=True)
            os.unlink(os.path.join(folder, name))


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        print("error", error, flush=True)
