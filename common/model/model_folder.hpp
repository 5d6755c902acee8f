#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/model/settings/model_config.hpp"
#include "common/model/settings/prompts.hpp"
#include "common/model/settings/sentence_modules.hpp"
#include "common/model/settings/tokenizer_settings.hpp"
#include "common/model/weights/safetensors.hpp"

namespace tessera {

// A limit on the tokens of a text, and the file that sets it.
struct SeqlenLimit {
  std::int64_t tokens = 0;
  std::string where;  // "config.json: max_position_embeddings"
};

// All that a model folder's settings say, checked against each other: what `tessera model`,
// `tessera up`, the coordinator and the workers know of it. Whatever in the files decides vectors
// is in here, in the tokenizer or in the weights, or the folder was refused.
struct ModelFolder {
  std::filesystem::path dir;  // that holds the files, for a hub cache its snapshot
  std::string name;           // to serve it under unless the user gives another
  ModelConfig config;
  SentenceModules modules;
  Prompts prompts;
  bool prompts_named = false;  // config_sentence_transformers.json is there
  TokenizerSettings tokenizer_config, special_tokens_map, added_tokens;
  SeqlenLimit seqlen;  // the smallest, but for tokenizer.json's own

  // Of config.json, the tokenizer's files and the weights.
  const std::filesystem::path& transformer_dir() const { return modules.transformer_dir; }
  std::filesystem::path tokenizer_path() const { return transformer_dir() / "tokenizer.json"; }
  // The width of the answers at full width.
  std::int64_t embedding_size() const;
  // A step needs the pooled vector's own length, so it must not be made a unit vector before.
  bool needs_raw_pooling() const;
};

// Reads the folder that `given` leads to (folder_location.hpp); each cause of refusal has its
// sentence, which begins with the file. Does not look at tokenizer.json and the weights.
Result<ModelFolder> read_model_folder(const std::filesystem::path& given);

struct FolderTokenizer {
  Tokenizer tokenizer;
  SeqlenLimit seqlen;  // the folder's, or a smaller one of tokenizer.json
};
// Loads tokenizer.json and checks it against the settings: its ids are within the vocabulary, it
// ends texts as last-token pooling needs it, and it has the tokens that the files beside it name.
Result<FolderTokenizer> load_tokenizer(const ModelFolder& folder);

// The weights, with every tensor checked against config.json, and those of Dense modules read.
// kNotFound only where files are missing, so that whoever needs no weights can tell.
Result<SafetensorsFolder> open_weights(const ModelFolder& folder);

// All of the above: what the processes that serve the folder will ask of it.
Result<void> check_model_folder(const std::filesystem::path& given);

// What decides vectors in the folder beside the bytes of tokenizer.json and of the tensors, a
// setting a line, the same for files that differ only in what is harmless. Prompts are not in it:
// they are part of the text.
std::string canonical_settings(const ModelFolder& folder);
// The safetensors files of Dense modules, in the order of the modules.
std::vector<std::filesystem::path> dense_weight_files(const ModelFolder& folder);

// What a reader of the folder should know, a sentence each: which rule held where the files say
// nothing, and what was left out.
std::vector<std::string> notes_on(const ModelFolder& folder);

}  // namespace tessera
