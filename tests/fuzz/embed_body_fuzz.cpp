// Any bytes as the body of an embedding route: each field is read in every way that a route reads
// one, and what was taken makes messages that the coordinator's own check passes.
#include <cstdint>
#include <string>

#include "clients/gateway/api/embed_body.hpp"
#include "common/check.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera;
  using namespace tessera::gateway;
  std::string body(reinterpret_cast<const char*>(data), size);
  const std::string before = body;
  ItemList items;
  const auto problem =
      read_fields(body, [&](std::string_view name, JsonValue& value) -> Result<void> {
        if (name == "input" || name == "inputs") {
          return read_items(value, 100, items);
        }
        if (name == "texts") {
          (void)value.raw();
          return read_texts(value, 100, items);
        }
        (void)is_null(value);
        (void)read_dimensions(value);
        (void)read_truncate(value);
        (void)value.text();
        (void)value.number();
        return {};
      });
  CHECK(body == before);
  CHECK(!problem || !problem->message.empty());
  for (const protocol::ItemBlock& block : items.blocks()) {
    CHECK(problem || protocol::validate(block).ok());
  }
  CHECK(items.size() <= 100);
  return 0;
}
