#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/settings/model_config.hpp"

namespace tessera {

enum class Activation : std::uint8_t { kIdentity, kTanh };

// A step between the pooled vector and the answer: y = activation(W x + b), or x / |x|.
struct VectorModule {
  enum class Kind : std::uint8_t { kNormalize, kDense };
  Kind kind = Kind::kNormalize;
  // Of kDense.
  std::filesystem::path dir;  // holds model.safetensors with linear.weight and linear.bias
  std::int64_t in_features = 0;
  std::int64_t out_features = 0;
  bool bias = false;
  Activation activation = Activation::kIdentity;
};

// What sentence-transformers' files of a folder say about the way from text to vector.
struct SentenceModules {
  // Where config.json, the tokenizer and the weights lie: the folder, or a folder in it.
  std::filesystem::path transformer_dir;
  // In the folder's order, behind the pooling of the last token. Every answer is brought to unit
  // length in the end, whether or not the last of them is kNormalize.
  std::vector<VectorModule> modules;
  bool listed = false;                         // modules.json is there
  bool pooling_named = false;                  // a pooling file is there
  bool normalized = false;                     // the last module is kNormalize
  std::filesystem::path pooling_file{};        // that says the width
  std::int64_t pooling_width = 0;              // as the pooling file says; 0: it does not
  std::optional<std::int64_t> max_seq_length;  // of sentence_bert_config.json
};

// Reads modules.json with the files in its folders, and sentence_bert_config.json. Without
// modules.json a 1_Pooling/config.json is read all the same. Refuses every module, pooling and
// setting that is not known, naming file, key and value.
Result<SentenceModules> read_sentence_modules(const std::filesystem::path& model_dir);

// Checks widths along the modules, which need config.json's hidden_size.
Result<void> check_module_widths(const SentenceModules& modules, const ModelConfig& config);

// A pooling file's text, `file` in complaints. Returns the width that it names, or 0.
Result<std::int64_t> parse_pooling(std::string_view text, const std::string& file);
Result<VectorModule> parse_dense(std::string_view text, const std::string& file);
// Returns max_seq_length where it is set.
Result<std::optional<std::int64_t>> parse_sentence_bert(std::string_view text,
                                                        const std::string& file);

struct ModuleEntry {
  std::string path;  // relative, inside the folder
  std::string kind;  // "Transformer", "Pooling", "Normalize", "Dense"
};
// modules.json: Transformer, Pooling, then any number of Normalize and Dense.
Result<std::vector<ModuleEntry>> parse_modules(std::string_view text, const std::string& file);

}  // namespace tessera
