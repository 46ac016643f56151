/* proto.h - the constants of the NBD protocol, under the names that its text uses.
 *
 * Source: NetworkBlockDevice/nbd doc/proto.md. All integers on the wire are big-endian. Shared by the server's session,
 * the simulator's clients and the tests. */
#ifndef TARN_NBD_PROTO_H
#define TARN_NBD_PROTO_H

#include <stdint.h>

/* ---- handshake ---- */
#define NBD_MAGIC_INIT   0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_MAGIC_OPTION 0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_MAGIC_REPLY  0x0003e889045565a9ull /* of a reply to an option */

#define NBD_GREETING_BYTES      18u /* both magics, 16 bits of handshake flags */
#define NBD_CLIENT_FLAGS_BYTES  4u
#define NBD_OPTION_HEADER_BYTES 16u  /* magic 64, option 32, length 32 */
#define NBD_OPTION_REPLY_BYTES  20u  /* magic 64, option 32, type 32, length 32 */
#define NBD_EXPORT_ZEROES       124u /* the tail of the answer to EXPORT_NAME, unless NO_ZEROES */

enum nbd_handshake_flag { NBD_FLAG_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_NO_ZEROES = 1 << 1 };
enum nbd_client_flag { NBD_FLAG_C_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_C_NO_ZEROES = 1 << 1 };

enum nbd_option {
  NBD_OPT_EXPORT_NAME = 1,
  NBD_OPT_ABORT = 2,
  NBD_OPT_LIST = 3,
  NBD_OPT_STARTTLS = 5,
  NBD_OPT_INFO = 6,
  NBD_OPT_GO = 7,
  NBD_OPT_STRUCTURED_REPLY = 8,
  NBD_OPT_LIST_META_CONTEXT = 9,
  NBD_OPT_SET_META_CONTEXT = 10,
  NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERROR               0x80000000u /* the bit that all error replies have */
#define NBD_REP_ACK                 1u
#define NBD_REP_SERVER              2u
#define NBD_REP_INFO                3u
#define NBD_REP_META_CONTEXT        4u
#define NBD_REP_ERR_UNSUP           (NBD_REP_ERROR + 1u)
#define NBD_REP_ERR_POLICY          (NBD_REP_ERROR + 2u)
#define NBD_REP_ERR_INVALID         (NBD_REP_ERROR + 3u)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_ERROR + 4u)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_ERROR + 5u)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_ERROR + 6u)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_ERROR + 7u)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_ERROR + 8u)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_ERROR + 9u)

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

enum nbd_transmission_flag {
  NBD_FLAG_HAS_FLAGS = 1 << 0,
  NBD_FLAG_READ_ONLY = 1 << 1,
  NBD_FLAG_SEND_FLUSH = 1 << 2,
  NBD_FLAG_SEND_FUA = 1 << 3,
  NBD_FLAG_ROTATIONAL = 1 << 4,
  NBD_FLAG_SEND_TRIM = 1 << 5,
  NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
  NBD_FLAG_SEND_DF = 1 << 7,
  NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
  NBD_FLAG_SEND_RESIZE = 1 << 9,
  NBD_FLAG_SEND_CACHE = 1 << 10,
  NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
};

/* ---- transmission ---- */
#define NBD_MAGIC_REQUEST    0x25609513u
#define NBD_MAGIC_SIMPLE     0x67446698u
#define NBD_MAGIC_STRUCTURED 0x668e33efu

#define NBD_REQUEST_BYTES      28u /* magic 32, flags 16, type 16, cookie 64, offset 64, length 32 */
#define NBD_SIMPLE_REPLY_BYTES 16u /* magic 32, error 32, cookie 64 */
#define NBD_CHUNK_BYTES        20u /* magic 32, flags 16, type 16, cookie 64, length 32 */
#define NBD_CHUNK_OFFSET_BYTES 8u  /* begins the payload of OFFSET_DATA */
#define NBD_CHUNK_ERROR_BYTES  6u  /* begins the payload of ERROR: error 32, message length 16 */
#define NBD_CHUNK_STATUS_BYTES 4u  /* begins the payload of BLOCK_STATUS: context 32 */
#define NBD_STATUS_RUN_BYTES   8u  /* follows, over and over: length 32, flags 32 */

enum nbd_command {
  NBD_CMD_READ = 0,
  NBD_CMD_WRITE = 1,
  NBD_CMD_DISC = 2,
  NBD_CMD_FLUSH = 3,
  NBD_CMD_TRIM = 4,
  NBD_CMD_CACHE = 5,
  NBD_CMD_WRITE_ZEROES = 6,
  NBD_CMD_BLOCK_STATUS = 7,
  NBD_CMD_RESIZE = 8,
};

enum nbd_command_flag {
  NBD_CMD_FLAG_FUA = 1 << 0,
  NBD_CMD_FLAG_NO_HOLE = 1 << 1,
  NBD_CMD_FLAG_DF = 1 << 2,
  NBD_CMD_FLAG_REQ_ONE = 1 << 3,
  NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
  NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

#define NBD_REPLY_FLAG_DONE 1u /* in the flags of a chunk: the last one of its reply */

enum nbd_chunk {
  NBD_REPLY_TYPE_NONE = 0,
  NBD_REPLY_TYPE_OFFSET_DATA = 1,
  NBD_REPLY_TYPE_OFFSET_HOLE = 2,
  NBD_REPLY_TYPE_BLOCK_STATUS = 5,
  NBD_REPLY_TYPE_ERROR = (1 << 15) + 1,
  NBD_REPLY_TYPE_ERROR_OFFSET = (1 << 15) + 2,
};

enum nbd_error {
  NBD_OK = 0,
  NBD_EPERM = 1,
  NBD_EIO = 5,
  NBD_ENOMEM = 12,
  NBD_EINVAL = 22,
  NBD_ENOSPC = 28,
  NBD_EOVERFLOW = 75,
  NBD_ENOTSUP = 95,
  NBD_ESHUTDOWN = 108,
};

#define NBD_DF_BYTES_MIN 65536u /* a DF read of up to this is never refused for its length */

#endif
