// .npz without NumPy: a zip of .npy files. numpy.savez stores them as they are, so that no
// decompression is needed; each has a header like
//   \x93NUMPY 1 0 <length> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
// and then its values.
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "bundle.hpp"

namespace {

struct Type {
    const char *descr, *name;
    size_t size;
};

constexpr Type kTypes[] = {
    {"<f4", "float32", 4}, {"<f8", "float64", 8}, {"<f2", "float16", 2}, {"<i8", "int64", 8},
    {"<i4", "int32", 4},   {"<i2", "int16", 2},   {"|i1", "int8", 1},    {"|b1", "bool", 1},
    {"|u1", "uint8", 1},   {"<u2", "uint16", 2},  {"<u4", "uint32", 4},  {"<u8", "uint64", 8},
};

constexpr size_t kMost = 1u << 30;

// Part of a string, or Wrong where it ends before.
std::string part(const std::string& bytes, size_t from, size_t size) {
    if (from > bytes.size() || size > bytes.size() - from) throw Wrong("it is cut off");
    return bytes.substr(from, size);
}

// A little-endian number of 2 or 4 bytes.
uint32_t number(const std::string& bytes, size_t from, size_t size) {
    uint32_t value = 0;
    std::memcpy(&value, part(bytes, from, size).data(), size);
    return value;
}

uint32_t crc32(const std::string& bytes) {
    uint32_t crc = ~0u;
    for (unsigned char byte : bytes) {
        crc ^= byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

// What stands behind a key of the header, up to one of the characters that end it.
std::string field(const std::string& header, const std::string& key, const char* end) {
    const size_t at = header.find("'" + key + "': ");
    if (at == std::string::npos) throw Wrong("an array of it has no " + key);
    const size_t from = at + key.size() + 4;
    return header.substr(from, header.find_first_of(end, from) - from);
}

Tensor read_npy(const std::string& bytes) {
    if (part(bytes, 0, 6) != "\x93NUMPY") throw Wrong("an entry of it is no .npy array");
    const size_t width = part(bytes, 6, 1)[0] == 1 ? 2 : 4;  // of the header's length, by version
    const std::string header = part(bytes, 8 + width, number(bytes, 8, width));
    const std::string quoted = field(header, "descr", ","),
                      descr = quoted.substr(1, quoted.size() - 2);
    // torch2mobile writes row by row. What else NumPy can write is not needed here.
    if (field(header, "fortran_order", ",") != "False") throw Wrong("an array of it is by column");
    Tensor tensor;
    for (const Type& type : kTypes)
        if (descr == type.descr) tensor.dtype = type.name;
    if (tensor.dtype.empty()) throw Wrong("an array of it has the dtype " + descr);
    size_t size = Tensor::size(tensor.dtype);
    std::istringstream shape(field(header, "shape", ")").substr(1));  // "2, 3" or "2," or nothing
    for (std::string each; std::getline(shape, each, ',');) {
        const size_t length = std::stoull(each);
        if (length != 0 && size > kMost / length)
            throw Wrong("an array of it claims more than 1 GiB");
        tensor.shape.push_back(static_cast<int64_t>(length));
        size *= length;
    }
    const size_t start = 8 + width + header.size();
    if (bytes.size() - start != size) throw Wrong("an array of it has not the size of its shape");
    tensor.data.assign(bytes.begin() + start, bytes.end());
    return tensor;
}

Named entries(const std::string& zip) {
    // The directory is at the end, where the record of 22 bytes that begins with PK56 says.
    const size_t end = zip.rfind("PK\x05\x06");
    if (end == std::string::npos) throw Wrong("it is no .npz");
    Named found;
    size_t at = number(zip, end + 16, 4);
    for (uint32_t left = number(zip, end + 10, 2); left > 0; --left) {
        if (part(zip, at, 4) != "PK\x01\x02") throw Wrong("its directory is damaged");
        if (number(zip, at + 10, 2) != 0) throw Wrong("it is compressed");
        const uint32_t crc = number(zip, at + 16, 4), size = number(zip, at + 24, 4);
        const uint32_t length = number(zip, at + 28, 2), local = number(zip, at + 42, 4);
        std::string name = part(zip, at + 46, length);
        // The data follow a header of their own, whose extra field may be longer.
        const size_t data = local + 30 + number(zip, local + 26, 2) + number(zip, local + 28, 2);
        const std::string bytes = part(zip, data, size);
        if (crc32(bytes) != crc) throw Wrong(name + " in it is damaged: its checksum differs");
        if (name.size() > 4 && name.substr(name.size() - 4) == ".npy") name.resize(name.size() - 4);
        found.emplace_back(name, read_npy(bytes));
        at += 46 + length + number(zip, at + 30, 2) + number(zip, at + 32, 2);
    }
    return found;
}

}  // namespace

size_t Tensor::size(const std::string& dtype) {
    for (const Type& type : kTypes)
        if (dtype == type.name) return type.size;
    return 0;
}

size_t Tensor::count() const { return data.size() / size(dtype); }

std::string Tensor::form() const {
    std::string text;
    for (int64_t size : shape) text += (text.empty() ? "" : ",") + std::to_string(size);
    return dtype + "[" + text + "]";
}

std::string read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file || !std::filesystem::is_regular_file(path))
        throw Wrong(path.filename().string() + " cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

Named read_npz(const std::filesystem::path& path) {
    const std::string zip = read_file(path);
    try {
        return entries(zip);
    } catch (const std::exception& error) {
        throw Wrong(path.filename().string() + ": " + error.what());
    }
}
