// Any bytes are either refused or decoded to a message that encodes and decodes to the same again.
// Whose a message is, is read from any bytes, and as the decoder reads it.
#include <cstring>

#include "common/wire/codec.hpp"
#include "common/wire/codec_origin.hpp"

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
  const Origin origin = read_origin(header);
  CHECK(origin.job_id.size() <= kNameBytesMax);
  auto message = decode(header, Bytes(bytes + header_bytes, bytes + size - 2));
  if (!message) {
    return 0;
  }
  if (const auto* chunk = std::get_if<SubmitChunk>(&*message)) {
    (void)validate(chunk->items).ok();
    CHECK(origin.job_id.empty() ||
          (origin.job_id == chunk->job_id && origin.chunk == chunk->chunk));
  }
  if (const auto* open = std::get_if<OpenJob>(&*message)) {
    CHECK(origin.request_id == open->request_id);
  }
  Frames frames = encode(std::move(message).value());
  const Bytes once = frames.header;
  auto again = decode(frames.header, std::move(frames.payload));
  CHECK(again.ok());
  CHECK(encode(std::move(again).value()).header == once);
  return 0;
}
