// replay BUNDLE: on a desk, over adb, or in a lab of devices. A test in an app calls replay()
// itself.
#include <cstdio>

#include "replay.hpp"

int main(int count, char** arguments) {
    if (count == 2) return replay(arguments[1]);
    std::fprintf(stderr, "usage: %s BUNDLE\n", arguments[0]);
    return 2;
}
