/* error.c - what each error is called for people. */
#include "base/error.h"

#include "base/require.h"

const char *tarn_err_text(tarn_err err) {
  static const char *const texts[TARN_ERR_COUNT] = {
#define X(name, text) [TARN_##name] = text,
      TARN_ERRORS(X)
#undef X
  };
  require(err < TARN_ERR_COUNT);
  return texts[err];
}
