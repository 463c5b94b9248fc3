// ncnn: a net made once, Mats in and out under the names that pnnx gave.
#include <net.h>

#include <cstring>

#include "model.hpp"

namespace {

// What a variant sets is part of what was proven. ncnn's own default is arithmetic in float16.
const std::map<std::string, bool ncnn::Option::*> kSettings = {
    {"use_fp16_packed", &ncnn::Option::use_fp16_packed},
    {"use_fp16_storage", &ncnn::Option::use_fp16_storage},
    {"use_fp16_arithmetic", &ncnn::Option::use_fp16_arithmetic},
    {"use_winograd43_convolution", &ncnn::Option::use_winograd43_convolution},
    {"use_winograd63_convolution", &ncnn::Option::use_winograd63_convolution},
};

// ncnn has no int64: a token id is an int32 there.
Tensor narrowed(const Tensor& tensor) {
    Tensor found{"int32", tensor.shape, std::vector<char>(tensor.count() * sizeof(int32_t))};
    for (size_t n = 0; n < tensor.count(); ++n) {
        int64_t value;
        std::memcpy(&value, tensor.data.data() + n * sizeof(value), sizeof(value));
        const auto narrow = static_cast<int32_t>(value);
        if (narrow != value) throw Refused("its values do not fit into int32");
        std::memcpy(found.data.data() + n * sizeof(narrow), &narrow, sizeof(narrow));
    }
    return found;
}

// One channel's values; the channels of a Mat may have a gap between them.
size_t plane(const ncnn::Mat& mat) { return sizeof(float) * mat.w * mat.h * mat.d; }

ncnn::Mat mat_of(const Tensor& tensor) {
    std::vector<int> s(tensor.shape.begin(), tensor.shape.end());
    ncnn::Mat mat;  // the last dimension comes first
    if (s.size() == 1) mat.create(s[0]);
    if (s.size() == 2) mat.create(s[1], s[0]);
    if (s.size() == 3) mat.create(s[2], s[1], s[0]);
    if (s.size() == 4) mat.create(s[3], s[2], s[1], s[0]);
    if (mat.empty()) throw Wrong("ncnn takes no " + tensor.form());
    for (int c = 0; c < mat.c; ++c)
        std::memcpy(mat.channel(c), tensor.data.data() + c * plane(mat), plane(mat));
    return mat;
}

Tensor tensor_of(const ncnn::Mat& mat) {
    Tensor tensor{"float32", {}, std::vector<char>(mat.c * plane(mat))};
    if (mat.dims == 1) tensor.shape = {mat.w};
    if (mat.dims == 2) tensor.shape = {mat.h, mat.w};
    if (mat.dims == 3) tensor.shape = {mat.c, mat.h, mat.w};
    if (mat.dims == 4) tensor.shape = {mat.c, mat.d, mat.h, mat.w};
    for (int c = 0; c < mat.c; ++c)
        std::memcpy(tensor.data.data() + c * plane(mat), mat.channel(c), plane(mat));
    return tensor;
}

struct NcnnModel : Model {
    NcnnModel(const Bundle& bundle, const Artefact& artefact)
        : bundle(bundle), names(artefact.names) {
        for (const auto& [name, value] : artefact.settings) {
            if (!kSettings.count(name))
                throw std::runtime_error("the setting " + name + " is not known here");
            net.opt.*kSettings.at(name) = value;
        }
        std::filesystem::path file = bundle.folder / artefact.file;
        const std::string param = file.string(), bin = file.replace_extension(".bin").string();
        if (net.load_param(param.c_str()) != 0 || net.load_model(bin.c_str()) != 0)
            throw Wrong(artefact.file + " does not load");
        // torch2mobile writes how many dimensions an input has into its layer's name: "in0:3".
        for (const ncnn::Layer* layer : net.layers()) {
            const size_t colon = layer->name.find(':');
            if (layer->type == "Input" && colon != std::string::npos)
                ranks[layer->name.substr(0, colon)] = std::stoul(layer->name.substr(colon + 1));
        }
    }

    Named run(const Tensors& inputs) override {
        ncnn::Extractor extractor = net.create_extractor();
        bool single = false;  // whether a first dimension was left out
        for (const auto& [name, given] : inputs) {
            const std::string& own = names.count(name) ? names.at(name) : name;
            Tensor tensor = given.dtype == "int64" ? narrowed(given) : given;
            if (tensor.dtype != "float32" && tensor.dtype != "int32")
                throw Wrong("ncnn takes no " + tensor.form());
            // There is no batch: a first dimension that may vary must be 1, and is mostly left out.
            if (bundle.batched.count(name) && tensor.shape.at(0) != 1)
                throw Refused("it takes no batch");
            if (tensor.shape.size() == ranks[own] + 1 && tensor.shape[0] == 1) {
                tensor.shape.erase(tensor.shape.begin());
                single = true;
            }
            if (extractor.input(own.c_str(), mat_of(tensor)) != 0)
                throw Wrong("it has no input " + own);
        }
        Named found;
        for (const auto& [name, rank] : bundle.outputs) {
            ncnn::Mat mat;
            const std::string& own = names.count(name) ? names.at(name) : name;
            if (extractor.extract(own.c_str(), mat) != 0)
                throw Wrong("ncnn could not compute " + own);
            Tensor tensor = tensor_of(mat);
            if (single && tensor.shape.size() + 1 == rank)
                tensor.shape.insert(tensor.shape.begin(), 1);
            found.emplace_back(name, std::move(tensor));
        }
        return found;
    }

    const Bundle& bundle;
    const std::map<std::string, std::string> names;
    std::map<std::string, size_t> ranks;
    ncnn::Net net;
};

}  // namespace

const char* const kTarget = "ncnn";

std::unique_ptr<Model> load(const Bundle& bundle, const Artefact& artefact) {
    return std::make_unique<NcnnModel>(bundle, artefact);
}
