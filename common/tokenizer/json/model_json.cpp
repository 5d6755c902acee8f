#include "common/tokenizer/json/model_json.hpp"

#include <algorithm>
#include <string>

#include "common/tokenizer/json/byte_alphabet.hpp"

namespace tessera::tokenizer {
namespace {

constexpr std::string_view kWhere = "model";

// Settings that are absent, null or their neutral value in every byte-level BPE of this kind.
bool check_settings(JsonReader& reader, const JsonObject& model) {
  const std::string where(kWhere);
  if (!reader.only_keys(
          model, where,
          {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
           "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}) ||
      !reader.require_string(model, where, "type", "BPE") ||
      !reader.require_null(model, where, "dropout") ||
      !reader.require_null(model, where, "unk_token")) {
    return false;
  }
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string_view affix;
    if ((model.at_key(key).get(affix) != simdjson::SUCCESS || !affix.empty()) &&
        !reader.require_null(model, where, key)) {
      return false;
    }
  }
  for (const std::string_view key : {"fuse_unk", "byte_fallback", "ignore_merges"}) {
    JsonElement element;
    if (model.at_key(key).get(element) == simdjson::SUCCESS &&
        !reader.require_bool(model, where, key, false)) {
      return false;
    }
  }
  return true;
}

bool read_vocabulary(JsonReader& reader, const JsonObject& model, Vocabulary& vocabulary) {
  JsonElement element;
  JsonObject vocab;
  if (!reader.field(model, "model", "vocab", element) ||
      !reader.object(element, "model.vocab", vocab)) {
    return false;
  }
  const std::size_t expected = std::min(vocab.size(), Vocabulary::kMaxIds);
  vocabulary.reserve(expected, 8 * expected);
  std::string bytes;
  for (const auto field : vocab) {
    bytes.clear();
    if (!append_bytes_of_alphabet(field.key, bytes)) {
      return reader.refuse("model.vocab has the entry \"" + std::string(field.key) +
                           "\", which is not written in the byte-level alphabet");
    }
    std::int64_t id = 0;
    if (field.value.get(id) != simdjson::SUCCESS || id < 0 ||
        id >= static_cast<std::int64_t>(Vocabulary::kMaxIds)) {
      return reader.refuse("model.vocab gives \"" + std::string(field.key) +
                           "\" an id that is not a number from 0 to 2097150");
    }
    if (!vocabulary.add(bytes, static_cast<std::int32_t>(id))) {
      return reader.refuse("model.vocab has an empty entry, or one string or id twice: \"" +
                           std::string(field.key) + "\"");
    }
  }
  return true;
}

bool read_byte_ids(JsonReader& reader, TokenizerSpec& spec) {
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char content = static_cast<char>(byte);
    const std::int32_t id = spec.vocabulary.find({&content, 1});
    if (id == Vocabulary::kNone) {
      return reader.refuse("model.vocab has no entry for byte " + std::to_string(byte));
    }
    spec.byte_ids.push_back(id);
  }
  return true;
}

// A merge is ["left", "right"] in newer files and "left right" in older ones.
bool split_merge(JsonElement element, std::string_view& left, std::string_view& right) {
  JsonArray pair;
  if (element.get(pair) == simdjson::SUCCESS) {
    return pair.size() == 2 && pair.at(0).get(left) == simdjson::SUCCESS &&
           pair.at(1).get(right) == simdjson::SUCCESS;
  }
  std::string_view both;
  if (element.get(both) != simdjson::SUCCESS) {
    return false;
  }
  const std::size_t space = both.find(' ');
  if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) {
    return false;
  }
  left = both.substr(0, space);
  right = both.substr(space + 1);
  return true;
}

// Finds the three ids of a merge; false when one is not in the vocabulary.
bool resolve_merge(const Vocabulary& vocabulary, std::string_view left, std::string_view right,
                   std::string& bytes, Merge& merge) {
  bytes.clear();
  if (!append_bytes_of_alphabet(left, bytes)) {
    return false;
  }
  const std::size_t middle = bytes.size();
  if (!append_bytes_of_alphabet(right, bytes)) {
    return false;
  }
  const std::string_view joined(bytes);
  merge.left = vocabulary.find(joined.substr(0, middle));
  merge.right = vocabulary.find(joined.substr(middle));
  merge.product = vocabulary.find(joined);
  return merge.left != Vocabulary::kNone && merge.right != Vocabulary::kNone &&
         merge.product != Vocabulary::kNone;
}

bool read_merges(JsonReader& reader, const JsonObject& model, TokenizerSpec& spec) {
  JsonElement element;
  JsonArray merges;
  if (!reader.field(model, "model", "merges", element) ||
      !reader.array(element, "model.merges", merges)) {
    return false;
  }
  std::string bytes;
  for (const JsonElement entry : merges) {
    const std::string number = std::to_string(spec.merges.size());
    std::string_view left;
    std::string_view right;
    Merge merge;
    if (!split_merge(entry, left, right)) {
      return reader.refuse("model.merges[" + number + "] is not a pair of strings");
    }
    if (!resolve_merge(spec.vocabulary, left, right, bytes, merge)) {
      return reader.refuse("model.merges[" + number + "] joins \"" + std::string(left) +
                           "\" and \"" + std::string(right) +
                           "\", of which a part or the whole is not in model.vocab");
    }
    if (spec.merges.size() == Vocabulary::kMaxIds) {
      return reader.refuse("model.merges has more than 2097151 entries");
    }
    spec.merges.push_back(merge);
  }
  return true;
}

}  // namespace

bool read_bpe_model(JsonReader& reader, const JsonObject& model, TokenizerSpec& spec) {
  return check_settings(reader, model) && read_vocabulary(reader, model, spec.vocabulary) &&
         read_byte_ids(reader, spec) && read_merges(reader, model, spec);
}

}  // namespace tessera::tokenizer
