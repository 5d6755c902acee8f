// Any bytes as text: what is not UTF-8 is refused, or repaired on request; the ids are those of the
// plain definition, whatever the word cache holds; and the ids' pieces are the text's normal form.

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/json/tokenizer_json.hpp"
#include "common/tokenizer/text/normalizer.hpp"
#include "common/tokenizer/text/utf8.hpp"
#include "common/tokenizer/tokenizer.hpp"
#include "tests/common/tokenizer/plain_encoder.hpp"

namespace {

struct Model {
  std::string json;
  tessera::tokenizer::TokenizerSpec spec;
  tessera::PlainEncoder plain;
  tessera::Tokenizer tokenizer;

  explicit Model(std::string text)
      : json(std::move(text)),
        spec(tessera::tokenizer::parse_tokenizer_json(json).value()),
        plain(spec),
        tokenizer(tessera::Tokenizer::parse(json).value()) {}
};

// The demo model's file: 16,000 tokens of several languages.
Model& model() {
  static Model loaded([] {
    std::ifstream file(TESSERA_DEMO_TOKENIZER, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }());
  return loaded;
}

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLongest = 1500;  // The plain definition is quadratic.
  if (size > kLongest) {
    return 0;
  }
  static tessera::EncodeScratch used;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const tessera::Tokenizer& tokenizer = model().tokenizer;
  const bool valid = tessera::tokenizer::is_valid_utf8(text);
  require((tessera::tokenizer::first_invalid_utf8(text) == text.size()) == valid);
  const auto strict = tokenizer.encode(text, {.add_template = false}, used);
  require(strict.ok() == valid);
  const std::string repaired = tessera::tokenizer::replace_invalid_utf8(text);
  require(tessera::tokenizer::is_valid_utf8(repaired) && (!valid || repaired == text));
  const auto encoding =
      tokenizer.encode(text, {.replace_invalid_utf8 = true, .add_template = false}, used);
  require(encoding.ok());
  if (repaired.find("<|") != std::string::npos) {
    return 0;  // May hold added tokens, which the plain definition does not know.
  }
  std::string storage;
  const std::string_view normal =
      tessera::tokenizer::Normalizer::instance().normalize(repaired, storage);
  require(encoding->ids == model().plain.encode(normal));
  std::string joined;
  for (const std::int32_t id : encoding->ids) {
    joined += tokenizer.piece(id);
  }
  require(joined == normal);
  return 0;
}
