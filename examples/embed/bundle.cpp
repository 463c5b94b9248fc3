// manifest.json: docs/reference/bundle.md has every field of it.
#include "bundle.hpp"

#include <nlohmann/json.hpp>

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// A file that the manifest names. What leads out of the bundle is none of it.
std::string inside(const std::string& name) {
    const fs::path path = fs::path(name).lexically_normal();
    if (name.empty() || path.is_absolute() || *path.begin() == "..")
        throw BadInput("manifest.json names " + name + ", which is not in the bundle");
    return name;
}

std::vector<Artefact> artefacts(const json& manifest) {
    // The .onnx is always there. It has no entry of its own: ONNX Runtime loads it as it is.
    std::vector<Artefact> found{{"onnx", "ort", "model.onnx", "float32", {}, {}}};
    for (const auto& [label, files] : manifest.at("targets").items()) {
        const json& entry = manifest.at("artifacts").at(label);
        const json& variant = entry.at("variant");
        Artefact one{label,
                     variant.at("target"),
                     inside(files.at(0)),
                     variant.at("precision"),
                     entry.at("names"),
                     {}};
        for (const auto& [name, value] : variant.at("settings").items())
            if (value.is_boolean()) one.settings[name] = value;
        found.push_back(one);
    }
    return found;
}

Tensors state(const json& manifest, const fs::path& folder) {
    Tensors found;
    if (manifest.value("state", json::array()).empty()) return found;
    const std::string bytes = read_file(folder / "state.bin");
    for (const json& entry : manifest.at("state")) {
        Tensor first{entry.at("dtype"), entry.at("shape"), {}};
        const size_t offset = entry.at("offset"), size = entry.at("size");
        if (offset > bytes.size() || size > bytes.size() - offset)
            throw Wrong("state.bin is cut off");
        first.data.assign(bytes.data() + offset, bytes.data() + offset + size);
        size_t expected = Tensor::size(first.dtype);
        for (int64_t length : first.shape) expected *= static_cast<size_t>(length);
        if (expected != size)
            throw BadInput("manifest.json has sizes of the state that do not fit");
        found[entry.at("input")] = first;
    }
    return found;
}

}  // namespace

Bundle read_bundle(const fs::path& folder) {
    std::string text;
    try {
        text = read_file(folder / "manifest.json");
    } catch (const Wrong&) {
        throw BadInput(folder.string() + " is no bundle: it has no manifest.json that can be read");
    }
    try {
        const json manifest = json::parse(text);
        if (manifest.at("kind") != "torch2mobile bundle" || manifest.at("schema_version") != 1)
            throw BadInput("manifest.json is of another kind or schema version");
        Bundle bundle{folder, artefacts(manifest), {}, {}, {}, state(manifest, folder)};
        for (const json& each : manifest.at("golden"))
            bundle.cases.push_back({inside(each.at("file")), each.at("probe"), each.at("allowed"),
                                    each.at("limits"), each.at("carries")});
        for (const json& output : manifest.at("outputs"))
            bundle.outputs.emplace_back(output.at("name").get<std::string>(),
                                        output.at("dims").size());
        for (const json& input : manifest.at("inputs"))
            if (!input.at("dims").empty() && !input.at("dims").at(0).at("symbol").is_null())
                bundle.batched.insert(input.at("name"));
        return bundle;
    } catch (const json::exception& error) {
        throw BadInput(std::string("manifest.json is not as torch2mobile writes it: ") +
                       error.what());
    }
}

Golden read_golden(const Bundle& bundle, const Case& from) {
    Golden golden;
    for (auto& [name, tensor] : read_npz(bundle.folder / from.file)) {
        if (name.rfind("inputs/", 0) == 0) golden.inputs[name.substr(7)] = std::move(tensor);
        if (name.rfind("outputs/", 0) == 0)
            golden.outputs.emplace_back(name.substr(8), std::move(tensor));
    }
    return golden;
}
