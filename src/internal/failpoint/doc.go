// Package failpoint ends, stops or delays a process between two steps, so that a test can see what the others make of that.
//
// Without the build tag failpoints, as everything is released, [Hit] is empty and inlined: nothing of a failpoint, not even its
// name, is in the program. With it, the environment variable FAENA_FAILPOINTS of a process has the path of a Unix socket, and
// after that, separated by commas, what is armed from the start:
//
//	FAENA_FAILPOINTS=/run/x.sock,worker/record-running=kill@2
//
// A connection to the socket sends one line and is answered with one, "ok" or what is wrong:
//
//	arm worker/record-running=kill    the next time it is hit; kill@2 the second time from now, and so on
//	arm api/published=stop            SIGSTOP: whoever sends SIGCONT lets it go on
//	arm api/published=delay:3s        the one that hits it waits
//	clear                             nothing is armed any more
//	clock -5m                         the process's wall clock is that far from the host's (package clock)
//
// What is armed acts once. A name is AREA/STEP, stands once in the sources, as a constant, and says what has just been done, or
// begins with "before-"; internal/endtoend has a case for each.
package failpoint
