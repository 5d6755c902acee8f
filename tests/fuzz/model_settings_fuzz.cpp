// Any bytes as one of the files beside config.json, chosen by the first byte: what is accepted
// keeps its limits, and complaints are one line.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/model/settings/prompts.hpp"
#include "common/model/settings/sentence_modules.hpp"
#include "common/model/settings/tokenizer_settings.hpp"

namespace {

template <typename T>
bool accepted(const tessera::Result<T>& result) {
  if (!result.ok() && result.error().message.find('\n') != std::string::npos) {
    std::abort();
  }
  return result.ok();
}

void require(bool holds) {
  if (!holds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0:
      if (const auto modules = tessera::parse_modules(text, "f"); accepted(modules)) {
        require(modules->size() >= 2 && (*modules)[0].kind == "Transformer");
        for (const auto& module : *modules) {
          require(!module.path.starts_with("/") && !module.path.starts_with(".."));
        }
      }
      break;
    case 1:
      (void)accepted(tessera::parse_pooling(text, "f"));
      break;
    case 2:
      if (const auto dense = tessera::parse_dense(text, "f"); accepted(dense)) {
        require(dense->in_features > 0 && dense->out_features > 0);
      }
      break;
    case 3:
      (void)accepted(tessera::parse_sentence_bert(text, "f"));
      break;
    case 4:
      if (const auto prompts = tessera::parse_prompts(text, "f"); accepted(prompts)) {
        require(prompts->by_name.contains("query") && prompts->by_name.contains("document"));
      }
      break;
    case 5:
      (void)accepted(tessera::parse_tokenizer_config(text, "f"));
      break;
    case 6:
      (void)accepted(tessera::parse_added_tokens(text, "f"));
      break;
  }
  return 0;
}
