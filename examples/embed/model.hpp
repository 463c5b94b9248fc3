// What a runtime does for the replay. with_onnxruntime.cpp and with_ncnn.cpp are what an app
// copies.
#pragma once

#include <memory>

#include "bundle.hpp"

struct Model {
    virtual ~Model() = default;
    // All outputs, under the names of the manifest. Throws Refused, or Wrong if it cannot run.
    virtual Named run(const Tensors& inputs) = 0;
};

extern const char* const kTarget;  // the artefacts that this program runs: "ort" or "ncnn"

// Throws Wrong for a file that does not load.
std::unique_ptr<Model> load(const Bundle& bundle, const Artefact& artefact);
