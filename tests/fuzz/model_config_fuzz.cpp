// Any bytes as config.json: what is accepted is consistent and small enough to compute with.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/model/memory_estimate.hpp"
#include "common/model/settings/model_config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config =
      tessera::parse_model_config(std::string_view(reinterpret_cast<const char*>(data), size));
  if (config.ok()) {
    const auto& c = *config;
    const auto memory =
        tessera::estimate_memory(c, {.max_batch_tokens = 1 << 20, .max_sequences = 1 << 16});
    if (c.parameters() <= 0 || tessera::total_bytes(memory) == 0 ||
        c.num_attention_heads % c.num_key_value_heads != 0 || c.hidden_size % 32 != 0) {
      std::abort();
    }
  }
  return 0;
}
