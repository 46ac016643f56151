"""A program on a terminal of its own, and somebody who reads and types there."""
import fcntl
import os
import pty
import re
import select
import struct
import termios

from .context import PATIENCE, Failed, wait_for
from .daemon import CLIENT_ENVIRONMENT


class Terminal:
    """Runs `argv`; it is ended with the test, or by Ctrl-C, or by itself."""

    def __init__(self, argv, columns=80, **environment):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
            os.execvpe(argv[0], argv, {**os.environ, **CLIENT_ENVIRONMENT, "TERM": "xterm", **environment})
        self.text = ""
        self.status = None

    def read(self, seconds=0.2):
        """All that was printed so far."""
        if self.status is None and select.select([self.fd], [], [], seconds)[0]:
            try:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # its other end is closed
                self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.text

    def wait(self, pattern, seconds=PATIENCE):
        """Until the text has this pattern."""
        try:
            wait_for(f"/{pattern}/ on the terminal", lambda: re.search(pattern, self.read()), seconds, every=0)
        except Failed as error:
            raise Failed(f"{error}; there is {self.text!r}") from None

    def end(self, seconds=PATIENCE):
        """Reads on until the program ends; returns its exit status."""
        wait_for("the program to end", lambda: self.read() is not None and self.status is not None, seconds, every=0)
        os.close(self.fd)
        return self.status

    def type(self, text):
        os.write(self.fd, text.encode())

    def press_ctrl_c(self):
        self.type("\x03")
