#include "common/model/model_config.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

using nlohmann::json;

Error invalid(std::string message) {
  return Error{ErrorCode::kInvalidArgument, "config.json: " + std::move(message)};
}

// Reads values out of the object and keeps the first complaint, so that the caller lists the
// fields one a line.
class FieldReader {
 public:
  explicit FieldReader(const json& object) : object_(object) {}

  std::int64_t integer(const char* name, std::int64_t min, std::int64_t max) {
    const auto found = object_.find(name);
    if (found == object_.end()) {
      return complain(std::string(name) + " is missing"), min;
    }
    if (!found->is_number_integer()) {
      return complain(std::string(name) + " is not a whole number"), min;
    }
    // A value above 2^63 is kept as unsigned by the parser; as signed it would turn negative.
    const bool too_large = found->is_number_unsigned() &&
                           found->get<std::uint64_t>() > static_cast<std::uint64_t>(max);
    const auto value = found->get<std::int64_t>();
    if (too_large || value < min || value > max) {
      return complain(std::string(name) + " is " + found->dump() + ", not within " +
                      std::to_string(min) + ".." + std::to_string(max)),
             min;
    }
    return value;
  }

  double number(const json& from, const char* name, double fallback, double min, double max) {
    const auto found = from.find(name);
    if (found == from.end()) {
      return fallback;
    }
    if (!found->is_number()) {
      return complain(std::string(name) + " is not a number"), fallback;
    }
    const auto value = found->get<double>();
    if (!std::isfinite(value) || value < min || value > max) {
      return complain(std::string(name) + " is " + found->dump() + ", out of range"), fallback;
    }
    return value;
  }

  bool boolean(const char* name) {
    const auto found = object_.find(name);
    if (found == object_.end() || found->is_null()) {
      return false;
    }
    if (!found->is_boolean()) {
      return complain(std::string(name) + " is neither true nor false"), false;
    }
    return found->get<bool>();
  }

  std::string string(const char* name) {
    const auto found = object_.find(name);
    return found != object_.end() && found->is_string() ? found->get<std::string>() : "";
  }

  void require(bool holds, const std::string& complaint) {
    if (!holds) {
      complain(complaint);
    }
  }

  const std::string& complaint() const { return complaint_; }

 private:
  void complain(const std::string& text) {
    if (complaint_.empty()) {
      complaint_ = text;
    }
  }

  const json& object_;
  std::string complaint_;
};

// RoPE settings: `rope_theta` and `rope_scaling` beside each other, or both inside
// `rope_parameters` as newer files have it.
void read_rope(FieldReader& reader, const json& object, ModelConfig& config) {
  const auto parameters = object.find("rope_parameters");
  const bool nested = parameters != object.end() && parameters->is_object();
  const json& rope = nested ? *parameters : object;
  config.rope_theta = reader.number(rope, "rope_theta", 1e6, 1.0, 1e12);
  if (nested && parameters->contains("rope_type")) {
    reader.require((*parameters)["rope_type"] == "default", "rope_parameters.rope_type is " +
                                                                (*parameters)["rope_type"].dump() +
                                                                "; only \"default\" is supported");
  }
  const auto scaling = object.find("rope_scaling");
  reader.require(scaling == object.end() || scaling->is_null(),
                 "rope_scaling is set, which is not supported");
}

void check_architecture(FieldReader& reader) {
  const std::string model_type = reader.string("model_type");
  reader.require(model_type == "qwen3",
                 "model_type is \"" + model_type.substr(0, 40) + "\"; only \"qwen3\" is supported");
  const std::string activation = reader.string("hidden_act");
  reader.require(activation.empty() || activation == "silu",
                 "hidden_act is \"" + activation.substr(0, 40) + "\"; only \"silu\" is supported");
  reader.require(!reader.boolean("attention_bias"),
                 "attention_bias is true, which is not supported");
  reader.require(!reader.boolean("use_sliding_window"),
                 "use_sliding_window is true, which is not supported");
}

Result<json> parse_object(std::string_view text) {
  if (text.size() > kModelConfigBytesMax) {
    return invalid("larger than " + std::to_string(kModelConfigBytesMax) + " bytes");
  }
  json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) {
    return invalid("not valid JSON");
  }
  if (!object.is_object()) {
    return invalid("not a JSON object");
  }
  return object;
}

// sentence-transformers' pooling file: absent, or asking for the last token and nothing else.
Result<void> check_pooling(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return {};
  }
  auto text = read_small_file(path, kModelConfigBytesMax);
  if (!text) {
    return text.error();
  }
  const json object = json::parse(*text, nullptr, false);
  if (!object.is_object() || object.value("pooling_mode_lasttoken", json(nullptr)) != json(true)) {
    return Error{ErrorCode::kInvalidArgument,
                 path.string() +
                     ": pooling_mode_lasttoken is not true; only last-token pooling "
                     "is supported"};
  }
  return {};
}

}  // namespace

std::int64_t ModelConfig::linear_parameters_per_layer() const {
  return hidden_size * (q_width() + 2 * kv_width()) + q_width() * hidden_size +
         3 * hidden_size * intermediate_size;
}

std::int64_t ModelConfig::parameters() const {
  const std::int64_t norms_per_layer = 2 * hidden_size + 2 * head_dim;
  return vocab_size * hidden_size +
         num_hidden_layers * (linear_parameters_per_layer() + norms_per_layer) + hidden_size;
}

Result<ModelConfig> parse_model_config(std::string_view text) {
  auto parsed = parse_object(text);
  if (!parsed) {
    return parsed.error();
  }
  const json& object = *parsed;
  FieldReader reader(object);
  ModelConfig config;
  check_architecture(reader);
  config.hidden_size = reader.integer("hidden_size", 32, 1 << 16);
  config.num_hidden_layers = reader.integer("num_hidden_layers", 1, 1024);
  config.intermediate_size = reader.integer("intermediate_size", 32, 1 << 20);
  config.num_attention_heads = reader.integer("num_attention_heads", 1, 1024);
  config.num_key_value_heads = reader.integer("num_key_value_heads", 1, 1024);
  config.head_dim = object.contains("head_dim") ? reader.integer("head_dim", 16, 512)
                                                : config.hidden_size / config.num_attention_heads;
  config.vocab_size = reader.integer("vocab_size", 1, 1 << 24);
  config.max_position_embeddings = reader.integer("max_position_embeddings", 2, 1 << 24);
  config.rms_norm_eps = reader.number(object, "rms_norm_eps", 1e-6, 0.0, 1.0);
  config.tie_word_embeddings = reader.boolean("tie_word_embeddings");
  config.torch_dtype = reader.string(object.contains("torch_dtype") ? "torch_dtype" : "dtype");
  read_rope(reader, object, config);
  reader.require(config.num_attention_heads % config.num_key_value_heads == 0,
                 "num_attention_heads is not a multiple of num_key_value_heads");
  reader.require(config.head_dim % 16 == 0, "head_dim is not a multiple of 16");
  reader.require(config.hidden_size % 32 == 0, "hidden_size is not a multiple of 32");
  reader.require(config.intermediate_size % 32 == 0, "intermediate_size is not a multiple of 32");
  if (!reader.complaint().empty()) {
    return invalid(reader.complaint());
  }
  return config;
}

Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t bytes_max) {
  std::ifstream stream(path, std::ios::binary);
  std::error_code failed;
  if (!stream || !std::filesystem::is_regular_file(path, failed)) {
    return Error{ErrorCode::kNotFound, path.string() + " cannot be read"};
  }
  const auto size = std::filesystem::file_size(path, failed);
  if (failed || size > bytes_max) {
    return Error{ErrorCode::kInvalidArgument,
                 path.string() + " is larger than " + std::to_string(bytes_max) + " bytes"};
  }
  std::string text(size, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(size));
  if (stream.gcount() != static_cast<std::streamsize>(size)) {
    return Error{ErrorCode::kInvalidArgument, path.string() + " ended early"};
  }
  return text;
}

Result<ModelConfig> read_model_config(const std::filesystem::path& model_dir) {
  auto text = read_small_file(model_dir / "config.json", kModelConfigBytesMax);
  if (!text) {
    return text.error();
  }
  auto config = parse_model_config(*text);
  if (!config) {
    return Error{config.error().code, model_dir.string() + "/" + config.error().message};
  }
  if (auto pooling = check_pooling(model_dir / "1_Pooling" / "config.json"); !pooling) {
    return pooling.error();
  }
  return config;
}

}  // namespace tessera
