// pause: as many milliseconds as the parameter says, which is the last argument and the result.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
	int ms = atoi(argv[argc - 1]);
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&pause, &pause)) {}
	return puts(argv[argc - 1]) < 0;
}
