// Any bytes as a safetensors header (the first eight give the size of the data) and as an index:
// a parsed header describes exactly its data, whatever it came from.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "common/model/weights/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)tessera::parse_safetensors_index(text);
  if (size < sizeof(std::uint64_t)) {
    return 0;
  }
  std::uint64_t data_bytes = 0;
  std::memcpy(&data_bytes, data, sizeof(data_bytes));
  const auto entries =
      tessera::parse_safetensors_header(text.substr(sizeof(data_bytes)), data_bytes);
  if (entries.ok()) {
    std::uint64_t end = 0;
    for (const auto& entry : *entries) {
      if (entry.begin != end || entry.end < entry.begin) {
        std::abort();
      }
      end = entry.end;
    }
    if (end != data_bytes) {
      std::abort();
    }
  }
  return 0;
}
