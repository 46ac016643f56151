/* error.h - the one error type.
 *
 * Three kinds of trouble, three answers: our own bug is a require() (stop); bad bytes from a disk or a peer are
 * TARN_CORRUPT (quarantine, repair, report); a failing world is any other value, returned and handled. */
#ifndef TARN_BASE_ERROR_H
#define TARN_BASE_ERROR_H

#define TARN_ERRORS(X)                         \
  X(OK, "success")                             \
  X(IO, "the disk failed to do it")            \
  X(REFUSED, "not allowed in this state")      \
  X(CORRUPT, "checksum or bound mismatch")     \
  X(STALE, "from an older epoch")              \
  X(FULL, "limit reached, wait and try again") \
  X(NO_SPACE, "no space left on the disk")     \
  X(RANGE, "beyond the end of the volume")     \
  X(UNSUPPORTED, "the disk cannot do it")      \
  X(GONE, "the disk is no longer there")       \
  X(HUNG, "the disk does not answer")          \
  X(SHUTDOWN, "the service is going away")     \
  X(NOT_FOUND, "there is no such thing")       \
  X(EXISTS, "it exists already")               \
  X(VERSION, "written by a newer version")     \
  X(INVALID, "malformed request")

typedef enum {
#define X(name, text) TARN_##name,
  TARN_ERRORS(X)
#undef X
      TARN_ERR_COUNT
} tarn_err;

#define CHECKED __attribute__((warn_unused_result))

/* A static text; never NULL. */
const char *tarn_err_text(tarn_err err);

#endif
