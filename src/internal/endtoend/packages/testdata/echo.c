// echo: the parameter, which is the last argument, is the result.
#include <stdio.h>

int main(int argc, char **argv) { return puts(argv[argc - 1]) < 0; }
