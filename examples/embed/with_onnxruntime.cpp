// ONNX Runtime: a session made once, arrays in and out by name.
#include <onnxruntime_cxx_api.h>

#include <cstdlib>
#include <cstring>

#include "model.hpp"

namespace {

struct Type {
    const char* name;
    ONNXTensorElementDataType code;
};

constexpr Type kTypes[] = {
    {"float32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {"float64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    {"float16", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {"int64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {"int32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {"int16", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {"int8", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {"bool", ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
    {"uint8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {"uint16", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16},
    {"uint32", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32},
    {"uint64", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64},
};

ONNXTensorElementDataType code_of(const std::string& dtype) {
    for (const Type& type : kTypes)
        if (dtype == type.name) return type.code;
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

Tensor read(const Ort::Value& value) {
    const auto info = value.GetTensorTypeAndShapeInfo();
    Tensor tensor{"", info.GetShape(), {}};
    for (const Type& type : kTypes)
        if (info.GetElementType() == type.code) tensor.dtype = type.name;
    if (tensor.dtype.empty()) throw Wrong("it gives an output of a dtype that is not known here");
    tensor.data.resize(info.GetElementCount() * Tensor::size(tensor.dtype));
    std::memcpy(tensor.data.data(), value.GetTensorRawData(), tensor.data.size());
    return tensor;
}

// One for the process, and it must live longer than every session.
Ort::Env& environment() {
#ifndef _WIN32
    // Desktop builds of ONNX Runtime count sessions and try to send that away. Not from a test.
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);
#endif
    static Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "replay");
    return env;
}

struct OrtModel : Model {
    explicit OrtModel(const std::filesystem::path& file)
        // The name's ending tells .ort from .onnx. Threads and providers are the app's choice.
        : session(environment(), file.c_str(), Ort::SessionOptions{}) {
        for (size_t n = 0; n < session.GetOutputCount(); ++n)
            outputs.emplace_back(session.GetOutputNameAllocated(n, allocator).get());
    }

    Named run(const Tensors& inputs) override try {
        std::vector<const char*> given, wanted;
        std::vector<Ort::Value> values;
        for (const auto& [name, tensor] : inputs) {
            given.push_back(name.c_str());
            // No copy: the tensor must live until Run is over, and is only read.
            values.push_back(Ort::Value::CreateTensor(memory, const_cast<char*>(tensor.data.data()),
                                                      tensor.data.size(), tensor.shape.data(),
                                                      tensor.shape.size(), code_of(tensor.dtype)));
        }
        for (const std::string& name : outputs) wanted.push_back(name.c_str());
        const auto results = session.Run(Ort::RunOptions{}, given.data(), values.data(),
                                         values.size(), wanted.data(), wanted.size());
        Named found;
        for (size_t n = 0; n < outputs.size(); ++n)
            found.emplace_back(outputs[n], read(results[n]));
        return found;
    } catch (const Ort::Exception& error) {
        throw Wrong(error.what());
    }

    Ort::Session session;
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
    std::vector<std::string> outputs;
};

}  // namespace

const char* const kTarget = "ort";

std::unique_ptr<Model> load(const Bundle& bundle, const Artefact& artefact) try {
    return std::make_unique<OrtModel>(bundle.folder / artefact.file);
} catch (const Ort::Exception& error) {
    throw Wrong(artefact.file + " does not load: " + error.what());
}
