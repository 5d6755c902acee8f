#include "common/tokenizer/json/tokenizer_json.hpp"

#include <algorithm>
#include <limits>

#include "common/tokenizer/json/byte_alphabet.hpp"
#include "common/tokenizer/json/json_reader.hpp"
#include "common/tokenizer/json/model_json.hpp"
#include "common/tokenizer/text/pretokenizer.hpp"

namespace tessera::tokenizer {
namespace {

bool read_normalizer(JsonReader& reader, const JsonObject& root, TokenizerSpec& spec) {
  JsonElement element;
  JsonObject normalizer;
  if (!reader.field(root, "the file", "normalizer", element)) {
    return false;
  }
  if (element.is_null()) {
    return true;
  }
  spec.normalize_nfc = true;
  return reader.object(element, "normalizer", normalizer) &&
         reader.only_keys(normalizer, "normalizer", {"type"}) &&
         reader.require_string(normalizer, "normalizer", "type", "NFC");
}

bool check_split(JsonReader& reader, JsonElement element) {
  const std::string where = "pre_tokenizer.pretokenizers[0]";
  JsonObject split;
  JsonElement pattern_element;
  JsonObject pattern;
  return reader.object(element, where, split) &&
         reader.only_keys(split, where, {"type", "pattern", "behavior", "invert"}) &&
         reader.require_string(split, where, "type", "Split") &&
         reader.require_string(split, where, "behavior", "Isolated") &&
         reader.require_bool(split, where, "invert", false) &&
         reader.field(split, where, "pattern", pattern_element) &&
         reader.object(pattern_element, where + ".pattern", pattern) &&
         reader.only_keys(pattern, where + ".pattern", {"Regex"}) &&
         reader.require_string(pattern, where + ".pattern", "Regex", kSplitPattern);
}

// `changes_text` tells a pre-tokenizer, whose settings matter, from the post-processor and decoder
// of the same name, which only move offsets.
bool check_byte_level(JsonReader& reader, JsonElement element, const std::string& where,
                      bool changes_text) {
  JsonObject byte_level;
  if (!reader.object(element, where, byte_level) ||
      !reader.only_keys(byte_level, where,
                        {"type", "add_prefix_space", "trim_offsets", "use_regex"}) ||
      !reader.require_string(byte_level, where, "type", "ByteLevel")) {
    return false;
  }
  return !changes_text || (reader.require_bool(byte_level, where, "add_prefix_space", false) &&
                           reader.require_bool(byte_level, where, "use_regex", false));
}

bool check_pre_tokenizer(JsonReader& reader, const JsonObject& root) {
  const std::string where = "pre_tokenizer";
  JsonElement element;
  JsonElement list_element;
  JsonObject sequence;
  JsonArray list;
  if (!reader.field(root, "the file", where, element) || !reader.object(element, where, sequence) ||
      !reader.only_keys(sequence, where, {"type", "pretokenizers"}) ||
      !reader.require_string(sequence, where, "type", "Sequence") ||
      !reader.field(sequence, where, "pretokenizers", list_element) ||
      !reader.array(list_element, where + ".pretokenizers", list)) {
    return false;
  }
  if (list.size() != 2) {
    return reader.refuse("pre_tokenizer.pretokenizers is supported only as [Split, ByteLevel]");
  }
  return check_split(reader, list.at(0)) &&
         check_byte_level(reader, list.at(1), "pre_tokenizer.pretokenizers[1]", true);
}

// The ids of one special token of a template, from the template's own table.
bool append_template_ids(JsonReader& reader, const JsonObject& table, std::string_view name,
                         std::vector<std::int32_t>& ids) {
  const std::string where = "post_processor.special_tokens." + std::string(name);
  JsonElement element;
  JsonElement list_element;
  JsonObject token;
  JsonArray list;
  if (!reader.field(table, "post_processor.special_tokens", name, element) ||
      !reader.object(element, where, token) ||
      !reader.only_keys(token, where, {"id", "ids", "tokens"}) ||
      !reader.field(token, where, "ids", list_element) ||
      !reader.array(list_element, where + ".ids", list)) {
    return false;
  }
  for (const JsonElement entry : list) {
    std::int64_t id = 0;
    if (entry.get(id) != simdjson::SUCCESS || id < 0 ||
        id >= static_cast<std::int64_t>(Vocabulary::kMaxIds)) {
      return reader.refuse(where + ".ids has an entry that is not a token id");
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return true;
}

// One element of the template: the text itself or a special token.
bool read_template_piece(JsonReader& reader, JsonElement element, const JsonObject& table,
                         bool& text_seen, TokenizerSpec& spec) {
  const std::string where = "post_processor.single[]";
  JsonObject piece;
  JsonElement content_element;
  JsonObject content;
  std::string_view id;
  if (!reader.object(element, where, piece) ||
      !reader.only_keys(piece, where, {"Sequence", "SpecialToken"})) {
    return false;
  }
  const bool is_text = piece.at_key("Sequence").error() == simdjson::SUCCESS;
  const std::string_view kind = is_text ? "Sequence" : "SpecialToken";
  if (piece.size() != 1 || !reader.field(piece, where, kind, content_element) ||
      !reader.object(content_element, where, content) ||
      !reader.only_keys(content, where, {"id", "type_id"}) ||
      !reader.string_field(content, where, "id", id)) {
    return reader.refuse(where + " is not one Sequence or SpecialToken");
  }
  if (!is_text) {
    return append_template_ids(reader, table, id, text_seen ? spec.suffix_ids : spec.prefix_ids);
  }
  if (id != "A" || text_seen) {
    return reader.refuse(where + " is supported only with the sequence A once");
  }
  text_seen = true;
  return true;
}

bool read_template(JsonReader& reader, JsonElement element, TokenizerSpec& spec) {
  const std::string where = "post_processor";
  JsonObject processor;
  JsonElement list_element;
  JsonElement table_element;
  JsonArray list;
  JsonObject table;
  if (!reader.object(element, where, processor) ||
      !reader.only_keys(processor, where, {"type", "single", "pair", "special_tokens"}) ||
      !reader.require_string(processor, where, "type", "TemplateProcessing") ||
      !reader.field(processor, where, "single", list_element) ||
      !reader.array(list_element, where + ".single", list) ||
      !reader.field(processor, where, "special_tokens", table_element) ||
      !reader.object(table_element, where + ".special_tokens", table)) {
    return false;
  }
  bool text_seen = false;
  for (const JsonElement piece : list) {
    if (!read_template_piece(reader, piece, table, text_seen, spec)) {
      return false;
    }
  }
  return text_seen || reader.refuse("post_processor.single has no sequence A");
}

std::string_view type_of(JsonElement element) {
  std::string_view type;
  return element.at_key("type").get(type) == simdjson::SUCCESS ? type : std::string_view{};
}

// null, ByteLevel, TemplateProcessing, or a sequence of the last two with at most one template.
bool read_post_processor(JsonReader& reader, const JsonObject& root, TokenizerSpec& spec) {
  const std::string where = "post_processor";
  JsonElement element;
  if (!reader.field(root, "the file", where, element)) {
    return false;
  }
  if (element.is_null()) {
    return true;
  }
  if (type_of(element) == "ByteLevel") {
    return check_byte_level(reader, element, where, false);
  }
  if (type_of(element) != "Sequence") {
    return read_template(reader, element, spec);
  }
  JsonObject sequence;
  JsonElement list_element;
  JsonArray list;
  if (!reader.object(element, where, sequence) ||
      !reader.only_keys(sequence, where, {"type", "processors"}) ||
      !reader.field(sequence, where, "processors", list_element) ||
      !reader.array(list_element, where + ".processors", list)) {
    return false;
  }
  int templates = 0;
  for (const JsonElement entry : list) {
    if (type_of(entry) == "ByteLevel") {
      if (!check_byte_level(reader, entry, where, false)) {
        return false;
      }
    } else if (++templates > 1) {
      return reader.refuse("post_processor.processors has more than one template");
    } else if (!read_template(reader, entry, spec)) {
      return false;
    }
  }
  return true;
}

// The id that the reference gives an added token: the vocabulary's own where it has the string,
// otherwise the next after the vocabulary and the added tokens so far. The file's id must agree. No
// id will do where a vocabulary with gaps has given that next one to another string.
std::int64_t expected_added_id(const TokenizerSpec& spec, std::string_view content) {
  const auto vocabulary_size = static_cast<std::int64_t>(spec.vocabulary.size());
  std::int64_t next = vocabulary_size;
  for (const AddedToken& token : spec.added_tokens) {
    next = std::max(next, std::int64_t{token.id} + 1);
  }
  std::string bytes;  // The vocabulary is compared as the file writes it, in the byte alphabet.
  const bool writable = append_bytes_of_alphabet(content, bytes);
  const std::int32_t own = writable ? spec.vocabulary.find(bytes) : Vocabulary::kNone;
  if (own != Vocabulary::kNone) {
    return own;
  }
  const bool taken = !spec.vocabulary.piece(static_cast<std::int32_t>(next)).empty();
  return taken ? std::numeric_limits<std::int64_t>::max() : next;
}

bool read_added_token(JsonReader& reader, JsonElement element, TokenizerSpec& spec) {
  const std::string where = "added_tokens[" + std::to_string(spec.added_tokens.size()) + "]";
  JsonObject object;
  JsonElement id_element;
  std::string_view content;
  std::int64_t id = 0;
  AddedToken token;
  if (!reader.object(element, where, object) ||
      !reader.only_keys(
          object, where,
          {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}) ||
      !reader.string_field(object, where, "content", content) ||
      !reader.require_bool(object, where, "single_word", false) ||
      !reader.require_bool(object, where, "lstrip", false) ||
      !reader.require_bool(object, where, "rstrip", false) ||
      !reader.require_bool(object, where, "normalized", false) ||
      !reader.bool_field(object, where, "special", token.special) ||
      !reader.field(object, where, "id", id_element)) {
    return false;
  }
  const auto same_content = [content](const AddedToken& other) { return other.content == content; };
  constexpr std::size_t kLongest = 1000;  // Bytes; the search tree is as deep.
  if (content.empty() || content.size() > kLongest ||
      std::ranges::any_of(spec.added_tokens, same_content)) {
    return reader.refuse(where + ".content is empty, longer than 1000 bytes or there twice");
  }
  if (id_element.get(id) != simdjson::SUCCESS || id != expected_added_id(spec, content) ||
      id >= static_cast<std::int64_t>(Vocabulary::kMaxIds)) {
    return reader.refuse(where +
                         ".id is not the id that follows from the vocabulary and the order");
  }
  token.content = content;
  token.id = static_cast<std::int32_t>(id);
  spec.added_tokens.push_back(std::move(token));
  return true;
}

bool read_added_tokens(JsonReader& reader, const JsonObject& root, TokenizerSpec& spec) {
  constexpr std::size_t kMostAddedTokens = 10'000;  // Their checks are quadratic.
  JsonElement element;
  JsonArray list;
  if (!reader.field(root, "the file", "added_tokens", element) ||
      !reader.array(element, "added_tokens", list)) {
    return false;
  }
  if (list.size() > kMostAddedTokens) {
    return reader.refuse("added_tokens has more than 10000 entries");
  }
  for (const JsonElement entry : list) {
    if (!read_added_token(reader, entry, spec)) {
      return false;
    }
  }
  return true;
}

bool check_decoder(JsonReader& reader, const JsonObject& root) {
  JsonElement element;
  return root.at_key("decoder").get(element) != simdjson::SUCCESS || element.is_null() ||
         check_byte_level(reader, element, "decoder", false);
}

// Every id that the template adds is one that a token of the file has.
bool check_template_ids(JsonReader& reader, const TokenizerSpec& spec) {
  for (const auto* ids : {&spec.prefix_ids, &spec.suffix_ids}) {
    for (const std::int32_t id : *ids) {
      const auto has_id = [id](const AddedToken& token) { return token.id == id; };
      if (spec.vocabulary.piece(id).empty() && std::ranges::none_of(spec.added_tokens, has_id)) {
        return reader.refuse("post_processor adds id " + std::to_string(id) +
                             ", which no token has");
      }
    }
  }
  return true;
}

// Training leaves padding and truncation behind. A text is never padded here, and truncation only
// says how long it may be.
bool read_truncation(JsonReader& reader, const JsonObject& root, TokenizerSpec& spec) {
  const std::string where = "truncation";
  JsonElement element;
  JsonElement length;
  JsonObject truncation;
  if (root.at_key("padding").get(element) == simdjson::SUCCESS && !element.is_null() &&
      !element.is_object()) {
    return reader.refuse("padding is neither null nor an object");
  }
  if (root.at_key(where).get(element) != simdjson::SUCCESS || element.is_null()) {
    return true;
  }
  if (!reader.object(element, where, truncation) ||
      !reader.only_keys(truncation, where, {"direction", "max_length", "strategy", "stride"}) ||
      !reader.field(truncation, where, "max_length", length)) {
    return false;
  }
  std::uint64_t tokens = 0;
  if (length.get(tokens) != simdjson::SUCCESS || tokens < 2) {
    return reader.refuse("truncation.max_length is not a whole number of at least 2");
  }
  spec.truncation_length = tokens;
  return true;
}

bool read_file(JsonReader& reader, JsonElement element, TokenizerSpec& spec) {
  const std::string where = "the file";
  JsonObject root;
  JsonElement model_element;
  JsonObject model;
  return reader.object(element, where, root) &&
         reader.only_keys(root, where,
                          {"version", "truncation", "padding", "added_tokens", "normalizer",
                           "pre_tokenizer", "post_processor", "decoder", "model"}) &&
         reader.require_string(root, where, "version", "1.0") &&
         read_truncation(reader, root, spec) && read_normalizer(reader, root, spec) &&
         check_pre_tokenizer(reader, root) && check_decoder(reader, root) &&
         reader.field(root, where, "model", model_element) &&
         reader.object(model_element, "model", model) && read_bpe_model(reader, model, spec) &&
         read_added_tokens(reader, root, spec) && read_post_processor(reader, root, spec) &&
         check_template_ids(reader, spec);
}

}  // namespace

Result<TokenizerSpec> parse_tokenizer_json(std::string_view json) {
  constexpr std::size_t kLargestFile = std::size_t{256} << 20U;
  JsonReader reader;
  if (json.size() > kLargestFile) {
    reader.refuse("the file is larger than 256 MiB");
    return reader.error();
  }
  simdjson::dom::parser parser;
  JsonElement root;
  const simdjson::error_code parsed = parser.parse(json.data(), json.size()).get(root);
  if (parsed != simdjson::SUCCESS) {
    reader.refuse(std::string("not valid JSON: ") + simdjson::error_message(parsed));
    return reader.error();
  }
  TokenizerSpec spec;
  if (!read_file(reader, root, spec)) {
    return reader.error();
  }
  return spec;
}

}  // namespace tessera::tokenizer
