#pragma once

#include "common/tokenizer/json/json_reader.hpp"
#include "common/tokenizer/json/tokenizer_json.hpp"

namespace tessera::tokenizer {

// Reads the "model" object: a byte-level BPE vocabulary and its merges. Fills `vocabulary`,
// `byte_ids` and `merges` of the spec; false when `reader` has a refusal.
bool read_bpe_model(JsonReader& reader, const JsonObject& model, TokenizerSpec& spec);

}  // namespace tessera::tokenizer
