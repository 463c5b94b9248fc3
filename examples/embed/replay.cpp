#include "replay.hpp"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>

#include "model.hpp"

namespace {

double half(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value =
        exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    if (exponent == 31) value = fraction ? NAN : INFINITY;
    return bits >> 15 ? -value : value;
}

template <typename T>
T at(const Tensor& tensor, size_t index) {
    T value;
    std::memcpy(&value, tensor.data.data() + index * sizeof(T), sizeof(T));
    return value;
}

double number(const Tensor& tensor, size_t index) {
    if (tensor.dtype == "float32") return at<float>(tensor, index);
    if (tensor.dtype == "float64") return at<double>(tensor, index);
    return half(at<uint16_t>(tensor, index));
}

// What may differ at each value of an output. "boxes" is for all of it, and "boxes@1=4:84" for the
// indices 4 to 83 of its dimension 1, where channels were measured apart.
std::vector<double> allowed(const std::map<std::string, double>& limits, const std::string& output,
                            const Tensor& want) {
    const auto whole = limits.find(output);
    std::vector<double> all(want.count(), whole == limits.end() ? 0.0 : whole->second);
    for (const auto& [key, limit] : limits) {
        size_t axis = 0;
        int64_t start = 0, stop = 0;
        if (key.compare(0, output.size() + 1, output + "@") != 0 ||
            std::sscanf(key.c_str() + output.size(), "@%zu=%" SCNd64 ":%" SCNd64, &axis, &start,
                        &stop) != 3 ||
            axis >= want.shape.size())
            continue;
        size_t inner = 1;
        for (size_t n = axis + 1; n < want.shape.size(); ++n) inner *= want.shape[n];
        for (size_t n = 0; n < all.size(); ++n) {
            const auto channel = static_cast<int64_t>(n / inner % want.shape[axis]);
            if (channel >= start && channel < stop) all[n] = limit;
        }
    }
    return all;
}

// What is known of an output after some cases.
struct Verdict {
    double error = 0, limit = 0, share = -1;  // share: error / limit, of the worst value
    std::string probe, problem;

    void wrong(const std::string& where, const std::string& what) {
        if (problem.empty()) probe = where, problem = what;
    }

    void add(const std::string& where, const Tensor& want, const Tensor& got,
             const std::vector<double>& limits) {
        const bool exact = want.dtype.rfind("float", 0) != 0;
        const size_t size = Tensor::size(want.dtype);
        for (size_t n = 0; n < limits.size(); ++n) {
            if (!std::memcmp(&want.data[n * size], &got.data[n * size], size)) continue;
            if (exact) return wrong(where, "whole numbers and truth values must be equal");
            const double a = number(want, n), b = number(got, n);
            if (a == b || (std::isnan(a) && std::isnan(b))) continue;  // 0 and -0, two NaN
            // NaN and infinities must stand in the same places: no difference shows them.
            if (!std::isfinite(a) || !std::isfinite(b))
                return wrong(where, "gives " + std::to_string(b) + " for " + std::to_string(a));
            const double off = std::fabs(a - b),
                         part = off <= limits[n] ? off / limits[n] : 1 + off;
            // Where anything is allowed, every share is 0.
            if (std::pair(part, off) > std::pair(share, error) && problem.empty())
                share = part, error = off, limit = limits[n], probe = where;
        }
    }

    bool passed() const { return problem.empty() && share <= 1; }
};

struct Result {
    bool held = true;  // to limits; otherwise only its structure counts
    std::map<std::string, Verdict> outputs;
    std::map<std::string, int> skipped;  // by reason
    int compared = 0;
};

// What computes less exactly than the module is held to the user's tolerances, if there are any.
bool held(const Bundle& bundle, const Artefact& artefact) {
    bool found = artefact.precision == "float32";
    for (const Case& each : bundle.cases) found = found || each.limits.count(artefact.label);
    return found;
}

void compare(Result& result, const std::string& label, const Case& from, const Named& want,
             const Named& got) {
    const auto own = from.limits.find(label);
    const auto& limits = own == from.limits.end() ? from.allowed : own->second;
    ++result.compared;
    if (got.size() != want.size())
        return result.outputs[""].wrong(
            from.probe, std::to_string(got.size()) + " outputs for " + std::to_string(want.size()));
    for (size_t n = 0; n < want.size(); ++n) {
        const auto& [name, tensor] = got[n];
        Verdict& verdict = result.outputs[want[n].first];
        if (name != want[n].first)
            verdict.wrong(from.probe, "has " + name + " in its place");
        else if (tensor.form() != want[n].second.form())
            verdict.wrong(from.probe, "is " + tensor.form() + ", and not " + want[n].second.form());
        else
            verdict.add(from.probe, want[n].second, tensor,
                        result.held ? allowed(limits, name, want[n].second)
                                    : std::vector<double>(want[n].second.count(), INFINITY));
    }
}

// Whether a case is the first of calls in a row: the one after it carries the state on.
bool begins(const Bundle& bundle, size_t n) {
    return bundle.cases[n].carries.empty() && n + 1 < bundle.cases.size() &&
           !bundle.cases[n + 1].carries.empty();
}

Result result_of(const Bundle& bundle, const Artefact& artefact) {
    Result result;
    result.held = held(bundle, artefact);
    Named got;                       // by the case before, for those that carry the state on
    std::optional<Refused> refused;  // the case before, and with it those that carry its state on
    std::unique_ptr<Model> model;
    try {
        model = load(bundle, artefact);
    } catch (const Wrong& error) {
        result.outputs[""].wrong("", error.what());
        return result;
    }
    for (size_t n = 0; n < bundle.cases.size(); ++n) try {
            const Case& from = bundle.cases[n];
            Golden golden = read_golden(bundle, from);
            const Tensors before(got.begin(), got.end());
            got.clear();
            if (begins(bundle, n))
                for (const auto& [name, first] : bundle.state) golden.inputs[name] = first;
            if (from.carries.empty()) refused.reset();
            if (refused) throw Refused(*refused);
            for (const auto& [input, output] : from.carries) {
                if (!before.count(output)) throw Wrong("the call before gave no " + output);
                golden.inputs[input] = before.at(output);
            }
            got = model->run(golden.inputs);
            compare(result, artefact.label, from, golden.outputs, got);
        } catch (const Refused& reason) {
            refused = reason;
            ++result.skipped[reason.what()];
        } catch (const Wrong& error) {
            result.outputs[""].wrong(bundle.cases[n].probe, error.what());
        }
    return result;
}

bool print(const std::string& label, const Result& result) {
    bool passed = true;
    for (const auto& [name, verdict] : result.outputs) {
        passed = passed && verdict.passed();
        const char* status = result.held ? "PASSED" : "SKIPPED";
        std::printf("%s  %s  %s  ", verdict.passed() ? status : "FAILED", label.c_str(),
                    name.c_str());
        if (!verdict.problem.empty())
            std::printf("%s", verdict.problem.c_str());
        else if (verdict.share < 0)
            std::printf("equal");
        else if (!result.held)
            std::printf("worst error %.3g, held to no tolerance", verdict.error);
        else
            std::printf("worst error %.3g of %.3g allowed", verdict.error, verdict.limit);
        std::printf(verdict.probe.empty() ? "\n" : " (case %s)\n", verdict.probe.c_str());
    }
    for (const auto& [reason, count] : result.skipped)
        std::printf("skipped %d cases on %s: %s\n", count, label.c_str(), reason.c_str());
    return passed;
}

int replay_all(const Bundle& bundle) {
    bool passed = true, compared = true;
    int artefacts = 0, held = 0;
    for (const Artefact& artefact : bundle.artefacts) {
        if (artefact.target != kTarget) continue;
        ++artefacts;
        const Result result = result_of(bundle, artefact);
        passed = print(artefact.label, result) && passed;
        compared = compared && result.compared > 0;
        held += result.held;
    }
    if (!passed) return 1;
    if (held && compared) return 0;
    std::printf("ERROR  nothing was compared: %s\n",
                !artefacts  ? "the bundle has no model for this runtime"
                : !compared ? "no golden case fits"
                            : "there is no tolerance that values were held to");
    return 3;
}

}  // namespace

int replay(const std::filesystem::path& bundle) try {
    return replay_all(read_bundle(bundle));
} catch (const BadInput& error) {
    std::fprintf(stderr, "ERROR  %s\n", error.what());
    return 2;
} catch (const Wrong& error) {
    std::fprintf(stderr, "FAILED  %s\n", error.what());
    return 1;
} catch (const std::exception& error) {
    std::fprintf(stderr, "ERROR  %s\n", error.what());
    return 3;
}
