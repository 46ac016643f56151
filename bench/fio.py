"""One run of fio against an NBD server."""
import fnmatch
import json
import os

from lib.context import Failed


def fio_words(uri, size_mib, seconds, words):
    return ["fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", f"--size={size_mib}m", "--time_based",
            f"--runtime={seconds}", "--randrepeat=0", "--norandommap", "--output-format=json", "--clat_percentiles=0",
            "--lat_percentiles=1", "--percentile_list=50:99", *words]


def run_fio(test, uri, size_mib, seconds, words, on_disk=True):
    """Returns fio's report of the job. What the run before left in the page cache is written out first: it would be
    this one's burden, if there is a disk in it."""
    if on_disk:
        os.sync()
    result = test.run(*fio_words(uri, size_mib, seconds, words), seconds=seconds + 60, quiet=True, cwd=test.path())
    job = json.loads(result.out[result.out.index("{"):])["jobs"][0]
    if not job["read"]["total_ios"] + job["write"]["total_ios"]:
        raise Failed(f"fio did nothing: {result}")
    return job


def busy_side(job):
    """The half of the report that tells of the job's I/Os: a job reads or writes."""
    return job["read"] if job["read"]["total_ios"] else job["write"]


def chosen(workloads, arguments):
    """Those of the table that `--only` names."""
    return {name: words for name, words in workloads.items()
            if not arguments.only or arguments.only in name or fnmatch.fnmatchcase(name, arguments.only)}
