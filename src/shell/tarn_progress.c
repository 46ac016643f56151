#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shell/tarn.h"
#include "shell/words.h"

#define BAR_CELLS 24u

static bool drawn;

void progress_draw(const struct tarn *tarn, const char *what, uint64_t done, uint64_t total, const char *note) {
  char bar[BAR_CELLS + 1], line[256], done_text[SIZE_TEXT], total_text[SIZE_TEXT];
  struct winsize size;
  if (tarn->json || !isatty(STDOUT_FILENO)) return;
  double share = total > 0 ? (double)done / (double)total : 0;
  size_t full = share >= 1 ? BAR_CELLS : (size_t)(share * BAR_CELLS);
  for (size_t i = 0; i < BAR_CELLS; i++) bar[i] = i < full ? '#' : '.';
  bar[BAR_CELLS] = 0;
  if (total > 0)
    snprintf(line, sizeof line, "%s [%s] %3.0f%%  %s of %s%s%s", what, bar, share * 100, size_text(done, done_text),
             size_text(total, total_text), note[0] ? "  " : "", note);
  else snprintf(line, sizeof line, "%s%s%s", what, note[0] ? "  " : "", note);
  unsigned width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  if (width < sizeof line) line[width] = 0; /* a line that wraps cannot be drawn over */
  printf("\r\033[K%s", line);
  fflush(stdout);
  drawn = true;
}

void progress_end(void) {
  if (drawn) printf("\r\033[K");
  drawn = false;
}

static volatile sig_atomic_t was_interrupted;
static void interrupt(int signal_number) {
  (void)signal_number;
  was_interrupted = 1;
}

void interrupt_watch(void) {
  struct sigaction action = {.sa_handler = interrupt, .sa_flags = SA_RESTART}; /* poll() and sleeps end */
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
}
bool interrupted(void) { return was_interrupted; }
