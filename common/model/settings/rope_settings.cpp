#include "common/model/settings/rope_settings.hpp"

namespace tessera {
namespace {

using Json = Settings::Json;

constexpr double kDefaultTheta = 10000.0;
constexpr double kThetaMax = 1e12;

const Json* filled(const Json* object) {
  return object != nullptr && object->is_object() && !object->empty() ? object : nullptr;
}

// The one object of all layers, out of {"full_attention": {...}}.
const Json* unnested(Settings& config, const std::string& where, const Json* rope) {
  if (rope == nullptr ||
      !(rope->contains("full_attention") || rope->contains("sliding_attention"))) {
    return rope;
  }
  const Json& nested = rope->contains("full_attention") ? (*rope)["full_attention"] : *rope;
  if (rope->size() != 1 || !nested.is_object() || rope->contains("sliding_attention")) {
    config.refuse(where, "only one entry for \"full_attention\" is supported");
    return nullptr;
  }
  return &nested;
}

// Nothing but the default rotation over whole heads; `inner` are the object's keys.
void check_type(Settings& inner) {
  constexpr std::string_view kWhy =
      "only the default rotary embedding is supported; serve a model with a scaled one elsewhere";
  inner.allow("rope_type", {"default"}, kWhy);
  inner.allow("type", {"default"}, kWhy);
  inner.allow("factor", {1, nullptr}, kWhy);
  inner.allow("attention_factor", {1, nullptr}, kWhy);
  inner.allow("partial_rotary_factor", {1, nullptr}, kWhy);
  inner.allow("mrope_section", {nullptr}, kWhy);
  inner.harmless({"original_max_position_embeddings"});  // Of scaled types only.
}

}  // namespace

double read_rope_theta(Settings& config) {
  constexpr double kUnset = -1;
  config.allow("partial_rotary_factor", {1, nullptr}, "only heads that rotate whole are supported");
  const double beside = config.number("rope_theta", kUnset, 1.0, kThetaMax);
  const Json* const scaling = config.value("rope_scaling");
  const Json* const parameters = config.value("rope_parameters");
  for (const auto& [name, value] :
       {std::pair("rope_scaling", scaling), std::pair("rope_parameters", parameters)}) {
    if (value != nullptr && !value->is_null() && !value->is_object()) {
      config.refuse(name, "neither null nor an object");
    }
  }
  const bool by_scaling = filled(scaling) != nullptr;
  const std::string where = by_scaling ? "rope_scaling" : "rope_parameters";
  if (by_scaling && filled(parameters) != nullptr && *scaling != *parameters) {
    config.refuse("rope_scaling", "rope_parameters says something else; keep one of them");
  }
  const Json* const rope = unnested(config, where, by_scaling ? scaling : filled(parameters));
  if (rope == nullptr) {
    return beside == kUnset ? kDefaultTheta : beside;
  }
  Settings inner(where, *rope);
  check_type(inner);
  const double inside = inner.number("rope_theta", kUnset, 1.0, kThetaMax);
  if (auto read = inner.end(); !read) {
    config.complain(read.error().message);
  }
  if (inside != kUnset && beside != kUnset && inside != beside) {
    config.refuse("rope_theta", where + " has another rope_theta, " + shown((*rope)["rope_theta"]) +
                                    ", and versions of transformers differ in which they take; "
                                    "keep the one that the model was trained with");
  }
  return inside != kUnset ? inside : beside != kUnset ? beside : kDefaultTheta;
}

}  // namespace tessera
