// Any bytes as tokenizer.json: refused with a sentence, or a tokenizer whose ids are all below its
// vocabulary size and whose pieces give the text back.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/tokenizer/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto tokenizer =
      tessera::Tokenizer::parse(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!tokenizer.ok()) {
    if (tokenizer.error().message.empty()) {
      std::abort();
    }
    return 0;
  }
  // In form C, so that normalisation changes nothing; some of it is usually an added token.
  const std::string_view text = "abcab  bc a<|end|><|e 123\r\n\xE4\xB8\xAD\xE6\x96\x87 isn't";
  tessera::EncodeScratch scratch;
  const auto encoding = tokenizer->encode(text, {.add_template = false}, scratch);
  std::string joined;
  for (const std::int32_t id : encoding->ids) {
    if (id < 0 || id >= tokenizer->vocab_size()) {
      std::abort();
    }
    joined += tokenizer->piece(id);
  }
  if (joined != text) {
    std::abort();
  }
  (void)tokenizer->self_test();
  return 0;
}
