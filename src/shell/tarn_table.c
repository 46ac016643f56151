#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "base/text.h"
#include "shell/tarn.h"
#include "shell/words.h"

#define COLUMNS_MAX 12u

struct table_row {
  char *cells[COLUMNS_MAX];
};

void table_add(struct table *table, ...) {
  require(table->column_count <= COLUMNS_MAX);
  struct table_row *rows = realloc(table->rows, (table->row_count + 1) * sizeof *rows);
  require(rows != NULL);
  table->rows = rows;
  va_list cells;
  va_start(cells, table);
  for (unsigned i = 0; i < table->column_count; i++) {
    rows[table->row_count].cells[i] = strdup(va_arg(cells, const char *));
    require(rows[table->row_count].cells[i] != NULL);
    text_printable(rows[table->row_count].cells[i]);
  }
  va_end(cells);
  table->row_count++;
}

void table_print(const struct table *table, unsigned indent, FILE *out) {
  int widths[COLUMNS_MAX] = {0};
  for (unsigned row = 0; row < table->row_count; row++)
    for (unsigned i = 0; i < table->column_count; i++) {
      int width = (int)strlen(table->rows[row].cells[i]);
      if (width > widths[i]) widths[i] = width;
    }
  for (unsigned row = 0; row < table->row_count; row++) {
    char **cells = table->rows[row].cells;
    unsigned last = table->column_count - 1;
    while (last > 0 && !cells[last][0]) last--; /* no blanks at the end of a line */
    fprintf(out, "%*s", (int)indent, "");
    for (unsigned i = 0; i <= last; i++) {
      bool right = table->right_aligned >> i & 1;
      int width = right ? widths[i] : i == last ? 0 : -widths[i];
      fprintf(out, "%*s%s", width, cells[i], i == last ? "\n" : "  ");
    }
  }
}

void table_free(struct table *table) {
  for (unsigned row = 0; row < table->row_count; row++)
    for (unsigned i = 0; i < table->column_count; i++) free(table->rows[row].cells[i]);
  free(table->rows);
  *table = (struct table){.column_count = 0};
}
