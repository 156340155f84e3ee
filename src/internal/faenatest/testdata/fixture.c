// A stand-in for the fixture program: writes its last argument.
#include <stdio.h>

int main(int argc, char **argv) { return fputs(argc > 1 ? argv[argc - 1] : "", stdout) < 0; }
