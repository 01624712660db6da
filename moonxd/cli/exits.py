"""Exit codes that scripts may rely on; those above 2 follow sysexits.h."""

OK = 0
#: The daemon answered, and the answer is bad: the job failed, is not there, was refused.
BAD = 1
USAGE = 2
#: No daemon on the socket.
UNREACHABLE = 69
NOT_PERMITTED = 77
BAD_CONFIG = 78
#: Stopped with Ctrl-C.
INTERRUPTED = 130
