/* nbd_disk.h - an export of an NBD server as a disk, over libnbd's asynchronous calls.
 *
 * One connection, made when the disk is opened and never made anew. When it is lost, or the server says that it shuts down, every
 * I/O in flight and every one after it ends with TARN_GONE: what the server has kept of a volatile cache nobody can tell
 * (rule 5), so a reconnect is a failure and a return. That is noticed with the next I/O, or when the disk is asked (disk_is_lost()).
 *
 * A server must be able to flush, and to write: one that cannot flush cannot promise that anything is stable, and is refused. FUA
 * is the server's, or a flush after the write. TRIM and WRITE_ZEROES are both NBD_CMD_WRITE_ZEROES (NBD's own TRIM leaves bytes
 * that nobody promises anything about). EXTENTS is answered if the server offers base:allocation. The server's smallest block is
 * block_bytes, 512 where it does not say; one of more than 4096 is refused.
 *
 * No lock and no identity: whoever else uses the export is not kept out. And a request that was under way when a connection was
 * lost may be done by the server later. So a disk whose last connection ended with such requests (nbd_disk_close() of one that
 * was lost, nbd_disk_abort()) is not opened before `settle` has passed since (rule 7); nbd_disk_settle_ns() tells. The same holds
 * from this process's start on for an export of a mirror that was not stopped cleanly, or of an image that was out when it was; and
 * from an import on.
 *
 * nbd_disk_open() and nbd_disk_probe() block, for NBD_CONNECT_S and the time that a name takes: call them from
 * reactor_run_blocking(). Everything else is for the reactor's thread. */
#ifndef TARN_SHELL_NBD_DISK_H
#define TARN_SHELL_NBD_DISK_H

#include "core/disk.h"
#include "shell/reactor.h"

#define NBD_CONNECT_S 10u

struct nbd_disk_options {
  struct reactor *reactor;
  const char *uri;     /* nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH (disk_text.h) */
  uint64_t size_bytes; /* 0: all of it. Else the disk is this long, and an export that is shorter is refused */
};

/* TARN_OK and the disk. Otherwise the reason in `why`, and
 *   TARN_NOT_FOUND  nobody answers there, or there is no such export
 *   TARN_INVALID    too small, or of no use to a mirror      TARN_REFUSED  the server wants what we do not do (TLS), or refuses
 *   TARN_HUNG       it does not answer in time               TARN_IO       anything else */
CHECKED tarn_err nbd_disk_open(const struct nbd_disk_options *options, struct disk **disk, struct why *why);
/* The same to see what there is: connects, learns the export's size, and disconnects. */
CHECKED tarn_err nbd_disk_probe(const char *uri, uint64_t *size_bytes, struct why *why);
bool disk_is_nbd(const struct disk *disk);
/* Cuts the connection: its I/Os end soon, with TARN_GONE. For an owner who has given up waiting for them. Harmless twice. */
void nbd_disk_abort(struct disk *disk);

/* How long to wait until the export may be opened again, of `settle_ns` in all; 0: at once. From any thread. */
uint64_t nbd_disk_settle_ns(const char *uri, uint64_t settle_ns);
/* Somebody before us may have left requests under way there: counts as if a connection had been lost now. */
void nbd_disk_unsettled(const char *uri);

#endif
