// Any bytes are either refused or decoded to a message that encodes and decodes to the same again.
#include <cstring>

#include "common/codec.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tessera::protocol;
  // The first two bytes split the input into header and payload.
  if (size < 2) {
    return 0;
  }
  const std::size_t header_bytes =
      std::min<std::size_t>(size - 2, data[0] + 256U * static_cast<std::size_t>(data[1]));
  const auto* bytes = reinterpret_cast<const std::byte*>(data + 2);
  const std::span<const std::byte> header(bytes, header_bytes);
  auto message = decode(header, Bytes(bytes + header_bytes, bytes + size - 2));
  if (!message) {
    return 0;
  }
  if (const auto* chunk = std::get_if<SubmitChunk>(&*message)) {
    (void)validate(chunk->items).ok();
  }
  Frames frames = encode(std::move(message).value());
  const Bytes once = frames.header;
  auto again = decode(frames.header, std::move(frames.payload));
  CHECK(again.ok());
  CHECK(encode(std::move(again).value()).header == once);
  return 0;
}
