// The replay of a bundle's golden data with the runtime that this is linked with.
#pragma once

#include <filesystem>

// Prints the worst error of each output of each artefact. Returns what torch2mobile exits with:
// 0 passed; 1 a value is off, or a file is wrong; 2 this is no bundle; 3 nothing could be compared.
int replay(const std::filesystem::path& bundle);
