// What is in a bundle that a test on a device needs: which files to load, and golden data to
// replay.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// The folder is no bundle, or one that this program does not know. Exit code 2.
struct BadInput : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A file of the bundle is missing or damaged, or gives something else. Exit code 1.
struct Wrong : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A case that an artefact cannot take by what it is, as ncnn a batch of 2: skipped, and counted.
struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Tensor {
    std::string dtype;  // NumPy's name, e.g. "float32"
    std::vector<int64_t> shape;
    std::vector<char> data;  // row by row, little-endian as phones are

    size_t count() const;                    // of values
    std::string form() const;                // "float32[2,1,48,64]"
    static size_t size(const std::string&);  // bytes of one value of a dtype; 0 if not known
};

using Tensors = std::map<std::string, Tensor>;
using Named = std::vector<std::pair<std::string, Tensor>>;  // where the order counts

struct Case {
    std::string file, probe;
    std::map<std::string, double> allowed;                        // error by output
    std::map<std::string, std::map<std::string, double>> limits;  // in its place, by artefact
    std::map<std::string, std::string> carries;  // inputs that are outputs of the case before
};

struct Golden {
    Tensors inputs;
    Named outputs;
};

struct Artefact {
    std::string label, target, file;
    std::string precision;  // "float32", or what it computes in, less exactly
    std::map<std::string, std::string> names;  // the runtime's own, by the contract's
    std::map<std::string, bool> settings;      // part of what was proven: an app must set them too
};

struct Bundle {
    std::filesystem::path folder;
    std::vector<Artefact> artefacts;
    std::vector<Case> cases;
    std::vector<std::pair<std::string, size_t>> outputs;  // and how many dimensions, in order
    std::set<std::string> batched;  // inputs whose first size may vary
    Tensors state;                  // with --state: what the app starts from
};

Bundle read_bundle(const std::filesystem::path& folder);
Golden read_golden(const Bundle& bundle, const Case& from);

// All arrays of an .npz, in its order.
Named read_npz(const std::filesystem::path& path);
std::string read_file(const std::filesystem::path& path);
